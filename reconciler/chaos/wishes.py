"""What people do with disks: ask for them, write to them, keep them open.

Each act says in words what it did, or None when there was nothing to do it to. What was asked
and what was flushed goes into the model. May be imported by the package only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from reconciler.chaos.model import Breakage, Model, key_of
from reconciler.chaos.world import BASES, LINKS, MIB, World
from reconciler.kernel.sim import SimCrash
from reconciler.specs import Sourced
from statemachine.errors import ByreError
from statemachine.machine import LIVE, Desired, Trigger
from statemachine.names import cow_marker, disk_name
from statemachine.observed import Holder
from statemachine.record import Record
from statemachine.spec import DiskSpec, DriverChoice, OnBusy
from statemachine.units import CHUNK_BYTES, Bytes

Act = Callable[[World, Model], str | None]

_STATES: Final = (*[Desired.LIVE] * 5, *[Desired.PAUSED] * 2, Desired.ATTACHED, Desired.REMOVED)
_COMMANDS: Final = (Trigger.PAUSE, Trigger.RESTORE, Trigger.REMOVE)
_HOLDERS: Final = (Holder(kind="process", name="vmm", pid=41), Holder(kind="mount", name="/mnt/x"))
_CHUNKS: Final = 200
"""How much of a disk is written to; so a store of 1 MiB fills up to where it must grow."""


def declare(world: World, model: Model) -> str | None:
    """Declare a disk: a new one, the same again, or another state or link."""
    name = world.dice.choice(world.names)
    spec = _spec(world, name)

    def ask() -> object:
        return world.declarer().apply([Sourced("chaos", spec)])

    link = ", with a link" if spec.link else ""
    return _asked(world, model, name, f"declare {name} {spec.state}{link}", ask)


def command(world: World, model: Model) -> str | None:
    """Pause, restore or remove a disk."""
    name, trigger = world.dice.choice(world.names), world.dice.choice(_COMMANDS)
    if name not in world.records():
        return None
    return _asked(
        world, model, name, f"{trigger} {name}", lambda: world.declarer().command([name], trigger)
    )


def retry(world: World, model: Model) -> str | None:
    """Have a stalled or faulted disk tried again."""
    ill = [record.name for record in world.log.records() if record.failure or record.fault]
    if not ill:
        return None
    name = world.dice.choice(ill)
    return _asked(world, model, name, f"retry {name}", lambda: world.declarer().retry([name]))


def write(world: World, model: Model) -> str | None:
    """Write a chunk to a live disk and flush it, after a look at what was written before."""
    record = _a_reachable(world)
    if record is None:
        return None
    wrong = unread(world, model, record)
    assert not wrong, "; ".join(wrong)
    offset = world.dice.randrange(_CHUNKS) * CHUNK_BYTES
    data = f"{record.name} at {offset}, {world.dice.random()}".encode()
    path = node_of(world, record)
    assert path is not None, "it was reachable"
    model.written[key_of(record)].pop(offset, None)  # what fails half way is unknown
    try:
        world.kernel.write(path, offset, data)
        world.kernel.flush(path)
    except OSError as error:
        _note_lost(world, model, record)
        return f"write to {record.name}: {error.strerror}"
    model.written[key_of(record)][offset] = data
    return f"write to {record.name} at {offset}, and flush"


def open_disk(world: World, model: Model) -> str | None:
    """Keep a live disk open until it is let go later."""
    record = _a_reachable(world)
    path = node_of(world, record) if record is not None else None
    if record is None or path is None:
        return None
    holder = world.dice.choice(_HOLDERS)
    handle = world.kernel.open(path, holder=holder)
    name = record.name

    def heal() -> str:
        handle.close()
        return f"{holder} lets {name} go"

    explains = frozenset({"in-use", "ebusy"})
    model.add(Breakage(what="left open", heal=heal, explains=explains))
    return f"{holder} keeps {name} open"


def node_of(world: World, record: Record) -> str | None:
    """Return the kernel's node of a live disk's own device; None when that is not there."""
    host = world.kernel.host
    if record.state not in LIVE:
        return None
    if record.driver == DriverChoice.CLONE:
        loop = host.loops.get(record.cow_loop) if record.cow_loop is not None else None
        is_ours = loop is not None and loop.marker == cow_marker(record.id, record.generation)
        return f"/dev/loop{record.cow_loop}" if loop and loop.file and is_ours else None
    device = host.mapper.by_name(record.device_name)
    if device is None or device.uuid != str(key_of(record)) or not device.is_snapshot:
        return None
    return f"/dev/{device.sysname}"


def unread(world: World, model: Model, record: Record, *, strictly: bool = False) -> list[str]:
    """Return what was flushed to a live disk and does not read back.

    Args:
        world: where it is.
        model: knows what was written.
        record: of the disk.
        strictly: whether it counts that it cannot be read just now.
    """
    path, wrong = node_of(world, record), []
    written = model.written[key_of(record)] if key_of(record) not in model.deleted else {}
    for offset, data in written.items() if path is not None else ():
        try:
            found = world.kernel.read(path, offset, len(data)) if path else b""
        except OSError as error:
            if strictly:
                wrong.append(f"{record.name} cannot be read at {offset}: {error.strerror}")
            continue
        if found != data:
            wrong.append(f"{record.name} has lost what was flushed at {offset}: {found!r}")
    if strictly and path is None:
        wrong.append(f"{record.name} has no device to read from")
    return wrong


def _spec(world: World, name: str) -> DiskSpec:
    number = int(name.removeprefix("sb-"))
    fails = world.heads() and world.heads()
    return DiskSpec(
        name=disk_name(name),
        base=BASES[number % len(BASES)],
        state=world.dice.choice(_STATES),
        link=LINKS / name / "rootfs.link" if world.heads() else None,
        driver=DriverChoice.CLONE if number % 3 == 0 else DriverChoice.AUTO,
        cow_size=Bytes(MIB) if number % 4 == 1 else None,
        on_busy=OnBusy.FAIL if fails else OnBusy.WAIT,
        busy_timeout_s=5.0,
    )


def _asked(world: World, model: Model, name: str, what: str, ask: Callable[[], object]) -> str:
    """Ask as a command does: refused, told that it is recorded, or killed in between."""
    try:
        ask()
    except SimCrash:
        world.kernel.faults.revive()
        what = f"{what}: the command was killed"
    except ByreError as error:
        return f"{what}: refused, {type(error).__name__}"
    record = world.log.record(name)
    if record is not None:
        model.asked[name] = record.desired
        world.wake(name)
    return what


def _a_reachable(world: World) -> Record | None:
    found = [record for record in world.log.records() if node_of(world, record) is not None]
    return world.dice.choice(found) if found else None


def _note_lost(world: World, model: Model, record: Record) -> None:
    """Take note when a write that found no room cost the disk its snapshot."""
    device = world.kernel.host.mapper.by_name(record.device_name)
    if device is not None and not device.is_valid:
        model.overflowed.add(key_of(record))
        model.count("snapshot lost to a full file system", "snapshot-invalid", "cow-invalid")

"""What people do by hand: to devices, loops, links and files, and what is not byre's at all.

Each act says in words what it did, or None when there was nothing to do it to. What byre cannot
and must not put right by itself has a `heal`: the person thinks better of it. May be imported by
the package only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from reconciler.chaos.model import Breakage, ForeignLoop, Model, key_of
from reconciler.chaos.world import BASES, LINKS, ROOT, World
from statemachine.machine import LIVE, State
from statemachine.names import UUID_PREFIX, DmUuid
from statemachine.observed import LinkKind
from statemachine.record import Record

FOREIGN: Final = Path("/srv/foreign")
MAPPER: Final = Path("/dev/mapper")
UDEV_S: Final = 5.0
"""Longer than udev holds a device."""
_VALID_AT: Final = 4
"""Where the header of an exception store says that it is valid (struct disk_header)."""


# --- devices and loops ---------------------------------------------------------------------------


def remove_device(world: World, model: Model) -> str | None:
    """Remove a device: dmsetup remove."""
    return _to_device(world, model, "device removed", world.kernel.remove_dm_by_hand)


def suspend_device(world: World, model: Model) -> str | None:
    """Suspend a device: dmsetup suspend."""
    return _to_device(world, model, "device suspended", world.kernel.suspend_dm_by_hand)


def _to_device(world: World, model: Model, what: str, do: Callable[[str], object]) -> str | None:
    record = _with_device(world)
    if record is None:
        return None
    try:
        do(record.device_name)
    except OSError as error:
        return f"{what}: {record.name}, refused: {error.strerror}"
    model.count(what)
    _notice(world, record.name)
    return f"{what}: {record.name}"


def rename_device(world: World, model: Model) -> str | None:
    """Rename a device: dmsetup rename."""
    record = _with_device(world)
    if record is None:
        return None
    name, new, uuid = record.device_name, f"renamed-{record.name}", str(key_of(record))
    try:
        world.kernel.rename_dm_by_hand(name, new)
    except OSError as error:
        return f"device renamed: {record.name}, refused: {error.strerror}"

    def heal() -> str:
        found = world.kernel.host.mapper.by_name(new)
        if found is None or found.uuid != uuid:
            return f"{new} is gone"
        now = world.log.record(record.name)
        if now is not None and str(key_of(now)) == uuid and now.state is not State.REMOVED:
            with contextlib.suppress(OSError):  # the name is taken: somebody else's by now
                world.kernel.rename_dm_by_hand(new, name)
                return f"{new} is named {name} again"
        _remove_device(world, new)
        return f"{new} is removed"

    explains = frozenset({"identity-mismatch", "ebusy", "in-use", "device-gone"})
    model.add(Breakage(what="device renamed", heal=heal, explains=explains))
    _notice(world, record.name)
    return f"device renamed: {name} is {new} now"


def detach_loop(world: World, model: Model) -> str | None:
    """Detach a loop: losetup -d."""
    loops = world.kernel.host.loops.bound()
    ours = [loop.number for loop in loops if loop.marker.startswith(UUID_PREFIX)]
    if not ours:
        return None
    number = world.dice.choice(ours)
    is_gone = world.kernel.detach_loop_by_hand(number)
    model.count("loop detached")
    return f"loop{number} is detached" + ("" if is_gone else ", which only sets autoclear")


def give_another_table(world: World, model: Model) -> str | None:
    """Make a device with a disk's own UUID that is no snapshot at all."""
    record = _pick(world, lambda each: each.state in (State.ATTACHED, State.PAUSED))
    if record is None:
        return None
    name, uuid = record.device_name, str(key_of(record))
    try:
        world.kernel.add_foreign_dm(name, uuid=uuid)
    except OSError as error:
        return f"device with another table: {record.name}, refused: {error.strerror}"

    def heal() -> str:
        found = world.kernel.host.mapper.by_name(name)
        if found is not None and found.uuid == uuid and not _is_snapshot(world, name):
            _remove_device(world, name)
        return f"the device of zeros named {name} is gone"

    kinds = frozenset({"identity-mismatch", "snapshot-unknown", "cow-missing", "ebusy"})
    model.add(Breakage(what="device with another table", heal=heal, explains=kinds))
    _notice(world, record.name)
    return f"{name} is a device of zeros, with the UUID of {record.name}"


def plant_foreign_device(world: World, model: Model) -> str | None:
    """Make a device that is not byre's, sometimes under the name of a disk's own."""
    names = [record.device_name for record in world.log.records()]
    name = world.dice.choice((*names, f"foreign-{len(model.foreign_dm)}"))
    uuid = world.dice.choice(("", f"LVM-{model.broke['foreign device']}"))
    try:
        world.kernel.add_foreign_dm(name, uuid=uuid)
    except OSError as error:
        return f"foreign device {name}, refused: {error.strerror}"
    model.foreign_dm[name] = uuid

    def heal() -> str:
        if name not in names or model.foreign_dm.pop(name, None) is None:
            return f"foreign {name} is in nobody's way"
        _remove_device(world, name)
        return f"foreign {name} is gone"

    explains = frozenset({"foreign-device", "ebusy"})
    model.add(Breakage(what="foreign device", heal=heal, explains=explains))
    return f"foreign device {name}"


def plant_foreign_loop(world: World, model: Model) -> str | None:
    """Put a loop on a file by hand: on a foreign one, on a base, or on a disk's own."""
    host = world.kernel.host
    cows = [Path(r.cow_path) for r in world.log.records() if r.cow_path]
    path = world.dice.choice((FOREIGN, *BASES, *cows))
    if path == FOREIGN and host.tree.find(path) is None:
        world.kernel.make_file(path, 2**20, b"foreign")
    file = world.kernel.host.tree.find(path)
    try:
        number = world.kernel.add_foreign_loop(path)
    except OSError as error:
        return f"foreign loop on {path}, refused: {error.strerror}"
    assert file is not None, "a loop was made on it"
    loop = ForeignLoop(number=number, inode=file.inode)
    model.foreign_loops.append(loop)

    def heal() -> str:
        if loop not in model.foreign_loops or path not in cows:
            return f"foreign loop{number} is in nobody's way"
        model.foreign_loops.remove(loop)
        world.kernel.detach_loop_by_hand(number)
        return f"foreign loop{number} is detached"

    model.add(Breakage(what="foreign loop", heal=heal, explains=frozenset({"two-loops", "ebusy"})))
    return f"foreign loop{number} on {path}"


# --- links and nodes -----------------------------------------------------------------------------


def delete_link(world: World, model: Model) -> str | None:
    """Delete a disk's link, or the node of its device."""
    record = _pick(world, lambda each: each.state in LIVE)
    if record is None:
        return None
    path = world.dice.choice((_link_of(record.name), MAPPER / record.device_name))
    if _kind_at(world, path) is not LinkKind.SYMLINK:
        return None
    world.kernel.delete(path)
    model.count("link deleted")
    _notice(world, record.name)
    return f"{path} is deleted"


def occupy_link(world: World, model: Model) -> str | None:
    """Put a file or a folder where a disk's link is, or should be."""
    name = world.dice.choice(world.names)
    path, is_folder = _link_of(name), world.heads()
    there = _kind_at(world, path)
    if there not in (LinkKind.SYMLINK, LinkKind.MISSING):
        return None
    if there is LinkKind.SYMLINK:
        world.kernel.delete(path)
    model.own_folders.add(path.parent)
    if is_folder:
        world.kernel.make_folder_by_hand(path)
    else:
        world.kernel.make_file(path, 512, b"somebody's")

    def heal() -> str:
        if _kind_at(world, path) is LinkKind.OCCUPIED:
            take = world.kernel.remove_folder_by_hand if is_folder else world.kernel.delete
            take(path)
        return f"{path} is free"

    explains = frozenset({"foreign-device"})
    model.add(Breakage(what="link occupied", heal=heal, explains=explains))
    _notice(world, name)
    return f"{path} is a {'folder' if is_folder else 'file'} now"


# --- files ---------------------------------------------------------------------------------------


def delete_cow(world: World, model: Model) -> str | None:
    """Delete a disk's own file: its data is gone for good, and byre must say so."""
    record = _with_file(world, model)
    if record is None:
        return None
    world.kernel.delete(record.cow_path)
    model.deleted.add(key_of(record))
    model.count("CoW file deleted", "cow-missing", "enoent")
    _notice(world, record.name)
    return f"the CoW file of {record.name} is deleted"


def swap_cow(world: World, model: Model) -> str | None:
    """Move a disk's own file away for a while, and sometimes put another in its place."""
    record = _with_file(world, model)
    if record is None:
        return None
    cow, aside = Path(record.cow_path), ROOT / f"aside-{sum(model.broke.values())}"
    swapped = world.heads() and world.kernel.has_room(ROOT)
    world.kernel.move(cow, aside)
    if swapped:
        world.kernel.make_file(cow, 2**20, b"another")
    key, name = key_of(record), record.name

    def heal() -> str:
        return _put_back(world, key, name, aside, cow)

    kinds = frozenset({"cow-missing", "identity-mismatch", "cow-foreign", "enoent", "eexist"})
    what = "CoW file swapped" if swapped else "CoW file moved away"
    model.add(Breakage(what=what, heal=heal, explains=kinds))
    _notice(world, record.name)
    return f"{what}: {record.name}"


def _put_back(world: World, key: DmUuid, name: str, aside: Path, cow: Path) -> str:
    """Put a disk's file back in its place, or away for good when the disk is removed by now."""
    tree = world.kernel.host.tree
    if tree.find(aside) is None:
        return f"{aside.name} was put back before"
    record = world.log.record(name)
    if record is None or key_of(record) != key or record.state is State.REMOVED:
        world.kernel.delete(aside)
        if tree.find(cow) is not None and cow not in _recorded(world):
            world.kernel.delete(cow)
        return f"nobody wants the CoW file of {name} back"
    if tree.find(cow) is not None:
        world.kernel.delete(cow)
    world.kernel.move(aside, cow)
    world.wake(name)
    return f"the CoW file of {name} is back"


def damage_header(world: World, model: Model) -> str | None:
    """Mark a paused disk's exception store invalid, and put that right later."""
    record = _pick(world, lambda each: each.state is State.PAUSED and each.driver == "dm-snapshot")
    if record is None or key_of(record) in model.damaged:
        return None
    if world.kernel.host.tree.find(record.cow_path) is None:
        return None
    path, key, name = record.cow_path, key_of(record), record.name
    before = world.kernel.read(path, _VALID_AT, 4)
    inode = world.kernel.host.tree.get(path).inode
    world.kernel.write(path, _VALID_AT, bytes(4))
    world.kernel.flush(path)

    model.damaged.add(key)

    def heal() -> str:
        model.damaged.discard(key)
        node = world.kernel.host.tree.find(path)
        if node is None or node.inode != inode or key in model.lost:
            return f"the CoW file of {name} is another one"
        world.kernel.write(path, _VALID_AT, before)
        world.kernel.flush(path)
        return f"the CoW file of {name} is repaired"

    explains = frozenset({"cow-invalid", "snapshot-invalid"})
    model.add(Breakage(what="CoW file damaged", heal=heal, explains=explains))
    _notice(world, name)
    return f"the exception store of {name} is marked invalid"


def move_base(world: World, model: Model) -> str | None:
    """Move a base away for a while."""
    base = world.dice.choice(BASES)
    aside = base.with_suffix(".aside")
    if world.kernel.host.tree.find(base) is None:
        return None
    world.kernel.move(base, aside)

    def heal() -> str:
        if world.kernel.host.tree.find(aside) is not None:
            world.kernel.move(aside, base)
        return f"{base} is back"

    explains = frozenset({"base-missing", "identity-mismatch", "enoent"})
    model.add(Breakage(what="base moved away", heal=heal, explains=explains))
    return f"{base} is moved away"


# --- helpers -------------------------------------------------------------------------------------


def _pick(world: World, is_fit: Callable[[Record], bool]) -> Record | None:
    found = [record for record in world.log.records() if is_fit(record)]
    return world.dice.choice(found) if found else None


def _with_device(world: World) -> Record | None:
    by_name = world.kernel.host.mapper.by_name
    uuids = {r.name: str(key_of(r)) for r in world.log.records()}

    def has_device(record: Record) -> bool:
        device = by_name(record.device_name)
        is_ours = device is not None and device.uuid == uuids[record.name]
        return is_ours and _is_snapshot(world, record.device_name)

    return _pick(world, has_device)


def _with_file(world: World, model: Model) -> Record | None:
    tree, recorded = world.kernel.host.tree, (State.ABSENT, State.REMOVED)
    return _pick(
        world,
        lambda each: (
            each.cow is not None
            and each.state not in recorded
            and key_of(each) not in model.damaged
            and tree.find(each.cow_path) is not None
            and tree.get(each.cow_path).inode == each.cow.inode
        ),
    )


def _recorded(world: World) -> set[Path]:
    """Return the paths of the files that disks have now."""
    return {Path(r.cow_path) for r in world.log.records() if r.state is not State.REMOVED}


def _remove_device(world: World, name: str) -> None:
    """Remove a device that nobody uses, when udev has let it go: dmsetup remove --retry."""
    world.clock.advance_s(UDEV_S)
    world.kernel.remove_dm_by_hand(name)


def _is_snapshot(world: World, name: str) -> bool:
    device = world.kernel.host.mapper.by_name(name)
    return device is not None and device.is_snapshot


def _link_of(name: str) -> Path:
    return LINKS / name / "rootfs.link"


def _kind_at(world: World, path: Path) -> LinkKind:
    return world.kernel.look_at_link(path).kind


def _notice(world: World, name: str) -> None:
    """Wake whoever looks at a disk; every second notice is lost, as notices are."""
    if world.heads():
        world.wake(name)

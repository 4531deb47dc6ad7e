"""What an observation of a dm-snapshot disk amounts to: its shape, its defects, its fault.

Pure; may be imported by dm_snapshot.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

import attrs

from reconciler.drivers import directio, jailing, longer, sparsifying
from reconciler.drivers.cow_room import CowRoom, bound, cow_size, first_size
from reconciler.drivers.port import Appraisal, Ground, Shape, left_links, link_defects
from reconciler.kernel.port import CowHeader
from statemachine.machine import State
from statemachine.names import cow_marker, disk_uuid
from statemachine.observed import (
    DeviceNumber,
    LinkKind,
    Loop,
    ObservedDisk,
    SnapshotHealth,
    SnapshotTable,
)
from statemachine.record import Record
from statemachine.units import SECTOR_BYTES, Sectors

_MAPPER: Final = Path("/dev/mapper")
_LOST: Final = (
    "end its user; with a copy of the CoW file: remove the device, put the copy in place, then "
    "`byre retry`; without one: `byre remove`, and create it anew"
)
_OTHER_TABLE: Final = "somebody gave the device another table; remove the device, then `byre retry`"


def appraise(record: Record, observed: ObservedDisk, ground: Ground) -> Appraisal:
    """Compare what was seen with a live, an attached and a paused disk."""
    shape = _shape(record, observed)
    fault = _fault(record, observed, ground, shape)
    if fault is not None:
        return attrs.evolve(fault, shape=shape)
    if shape is Shape.LIVE:
        defects = _live_defects(record, observed)
        return Appraisal(
            shape=shape,
            defects=defects,
            is_unheard_of=record.cow is None,
            room=_room(record, observed),
        )
    return Appraisal(
        shape=shape,
        defects=_attached_defects(record, observed),
        leftovers=_leftovers(record, observed, shape),
        is_unheard_of=record.cow is None and observed.cow_header == CowHeader.VALID,
    )


def uuid_of(record: Record) -> str:
    """Return the dm UUID of a disk in its generation."""
    return disk_uuid(record.id, record.generation)


def store_of(record: Record) -> str:
    """Return how a disk's table says where its exceptions are: "P" in the CoW file, "N" nowhere."""
    return "P" if record.wanted.persistent else "N"


def node_path(record: Record) -> Path:
    """Return /dev/mapper/NAME."""
    return _node_path(record.device_name)


@functools.lru_cache(maxsize=1024)
def _node_path(device_name: str) -> Path:
    return _MAPPER / device_name


def link_texts(record: Record) -> tuple[str, ...]:
    """Return the texts that a link of ours may have: its own, and another disk's until it is."""
    own = str(node_path(record))
    return (own, record.link_taken) if record.link_taken else (own,)


def _is_ours(record: Record, observed: ObservedDisk) -> bool:
    return observed.dm is not None and observed.dm.uuid == uuid_of(record)


def _shape(record: Record, observed: ObservedDisk) -> Shape:
    if _is_ours(record, observed) and observed.dm is not None and observed.dm.live:
        return Shape.LIVE
    if observed.cow is None:
        return Shape.NOTHING
    marker = cow_marker(record.id, record.generation)
    if observed.cow_loop is not None and observed.cow_loop.marker == marker:
        return Shape.ATTACHED
    return Shape.STORED


def _fault(
    record: Record, observed: ObservedDisk, ground: Ground, shape: Shape
) -> Appraisal | None:
    """Say why a disk that has data must be left alone; None when it need not be."""
    if record.cow is None or record.state in (State.ABSENT, State.REMOVED):
        return _fault_of_unrecorded(observed, shape) if record.cow is None else None
    if not record.wanted.persistent:
        # Its data goes with its device, whatever is in the file, and is whole as long as that is.
        return _fault_of_device(record, observed, ground) if shape is Shape.LIVE else None
    return _fault_of_kept(record, observed, ground, shape)


def _fault_of_kept(
    record: Record, observed: ObservedDisk, ground: Ground, shape: Shape
) -> Appraisal | None:
    """Say what is wrong with a disk's data, or with the device on it; None when nothing is."""
    assert record.cow is not None, "only asked of a disk that has data"
    path = record.cow_path
    if observed.cow is None:
        hint = "put the file back, then `byre retry`; or `byre remove` gives the disk up"
        if observed.cow_loop is not None:
            hint = f"its data is still in {observed.cow_loop.path}: copy that first; then {hint}"
        return _faulted("cow-missing", f"CoW file {path} is missing", hint)
    same_boot = record.cow_boot_id == ground.boot_id
    own = [each for each in (record.cow, record.cow_next) if each is not None]
    if not any(each.same_file(observed.cow, same_boot=same_boot) for each in own):
        msg = f"CoW file {path} is another file: recorded {record.cow}; found {observed.cow}"
        hint = "put the recorded file back, then `byre retry`"
        return attrs.evolve(_faulted("identity-mismatch", msg, hint), fault_exit_code=4)
    if shape is Shape.LIVE and (fault := _fault_of_device(record, observed, ground)):
        return fault
    bad = observed.cow_header in (CowHeader.INVALID, CowHeader.FOREIGN)
    lost = observed.cow_header == CowHeader.EMPTY and record.state is State.PAUSED
    if bad or lost:
        msg = f"CoW file {path} is damaged: its exception store is {observed.cow_header}"
        hint = "restore a copy of the file, then `byre retry`; or `byre remove`"
        return _faulted(f"cow-{observed.cow_header}", msg, hint)
    return None


def _fault_of_unrecorded(observed: ObservedDisk, shape: Shape) -> Appraisal | None:
    """Say why a live device of which the log tells nothing cannot be taken in; None if it can."""
    if shape is not Shape.LIVE or observed.cow is not None or observed.dm is None:
        return None
    msg = f"{observed.dm.name} is live, and its CoW file is not in its place"
    return _faulted("cow-missing", msg, "copy the data out of the device, then `byre remove`")


def _fault_of_device(record: Record, observed: ObservedDisk, ground: Ground) -> Appraisal | None:
    """Say what is wrong with a live device and cannot be put right; None when nothing is."""
    wrong = _wrong_table(record, observed, ground)
    if wrong:
        msg = f"{record.device_name} {wrong}"
        return attrs.evolve(_faulted("identity-mismatch", msg, _OTHER_TABLE), fault_exit_code=4)
    health = observed.dm.status.health if observed.dm and observed.dm.status else None
    if health in (SnapshotHealth.INVALID, SnapshotHealth.OVERFLOW):
        msg = f"the snapshot is {health}: what was written to it is lost, its base is untouched"
        return _faulted(f"snapshot-{health}", msg, _LOST)
    return None


def _wrong_table(record: Record, observed: ObservedDisk, ground: Ground) -> str:
    """Say what a live device stands on if not on its own file over its base; "" when it does."""
    table = observed.dm.table if observed.dm else None
    if table is None:
        return "has another table than a snapshot"
    below, origin, cow = observed.cow_loop, observed.base_loop, observed.cow
    if cow is not None and (below is None or not below.backs(cow)):
        return f"is on {_place(below, table.cow)}, not on its own file"
    same_boot = record.base_boot_id == ground.boot_id
    if same_boot and (origin is None or not origin.backs(record.base)):
        return f"is over {_place(origin, table.origin)}, not over its base"
    if why := longer.wrong(record, observed, table):
        return why
    return _wrong_store(record, table)


def _wrong_store(record: Record, table: SnapshotTable) -> str:
    """Say what a live device's table says of exceptions that the spec does not; "" for nothing."""
    chunk, store = record.wanted.chunk_size, store_of(record)
    if table.chunk.to_bytes() != chunk:
        return f"has chunks of {table.chunk.to_bytes()}, its spec says {chunk}"
    if table.persistent != store:
        return f"has exceptions {table.persistent}, its spec says {store}"
    return ""


def _place(loop: Loop | None, number: DeviceNumber) -> str:
    return f"{loop.path} ({loop.backing_path})" if loop else f"device {number}"


def _faulted(kind: str, message: str, hint: str) -> Appraisal:
    return Appraisal(shape=Shape.NOTHING, fault=message, fault_kind=kind, fault_hint=hint)


def _live_defects(record: Record, observed: ObservedDisk) -> tuple[str, ...]:
    dm = observed.dm
    assert dm is not None, "only asked of a live device"
    found: list[str] = []
    node, number = str(node_path(record)), str(dm.device)
    if (record.device, record.device_number) != (node, number):
        found.append(f"{node} ({number}) is not the recorded device")
    if dm.suspended and record.frozen is None:
        found.append(f"{dm.name} is suspended")
    if observed.node is not None and not _leads_to(observed, dm.node):
        found.append(f"{node} does not lead to {dm.node}")
    there = observed.device_node
    if there is not None and there.target != number:
        found.append(f"{dm.node} is {'missing' if there.kind is LinkKind.MISSING else 'another'}")
    found += longer.defects(record, observed)
    found += directio.defects(record, observed)
    found += link_defects(record, observed, node, link_texts(record))
    return (*found, *jailing.defects(record, observed, number))


def _room(record: Record, observed: ObservedDisk) -> CowRoom | None:
    """Return how full a live disk's exception store is; None when that cannot be told."""
    dm, cow = observed.dm, observed.cow
    if dm is None or dm.status is None or cow is None or record.cow is None:
        return None
    spec, size = record.wanted, record.size
    return CowRoom(
        used=dm.status.used.to_bytes(),
        capacity=dm.status.total.to_bytes(),
        # A loop has whole sectors only.
        file_size=Sectors(cow.size.count // SECTOR_BYTES).to_bytes(),
        recorded=record.cow.size,
        least=first_size(spec, size),
        bound=bound(spec, size),
        full=cow_size(size, spec.chunk_size),
        chunk=spec.chunk_size,
    )


def _leads_to(observed: ObservedDisk, dm_node: str) -> bool:
    node = observed.node
    assert node is not None, "the caller looked"
    if node.kind is LinkKind.DEVICE:
        return observed.dm is not None and node.target == str(observed.dm.device)
    return node.kind is LinkKind.SYMLINK and _last(node.target) == _last(dm_node)


def _last(path: str) -> str:
    """Return the last part of a path, as a text: two paths made of texts take ten times as long."""
    return path.rstrip("/").rpartition("/")[2]


def _attached_defects(record: Record, observed: ObservedDisk) -> tuple[str, ...]:
    if record.state is not State.ATTACHED:
        return ()
    base, loop = observed.base, observed.base_loop
    if base is not None and (loop is None or not loop.backs(base)):
        return (f"the loop of base {record.wanted.base} is missing",)
    return directio.defects(record, observed)


def _leftovers(record: Record, observed: ObservedDisk, shape: Shape) -> tuple[str, ...]:
    """Name what an attached or paused disk has that it should not have."""
    found: list[str] = []
    if _is_ours(record, observed) and observed.dm is not None and not observed.dm.live:
        found.append(f"half-made device {observed.dm.name}")
    on_loop = shape is Shape.ATTACHED and record.state is not State.ATTACHED
    if on_loop and observed.cow_loop is not None:
        found.append(f"loop {observed.cow_loop.path}")
    found += longer.left(record, observed)
    found += sparsifying.left(record)
    if _is_dangling(observed):
        found.append(f"dangling node {node_path(record)}")
    found += left_links(record, observed, link_texts(record))
    return (*found, *jailing.left_nodes(record, observed))


def _is_dangling(observed: ObservedDisk) -> bool:
    """Tell whether the name of a device that is gone still leads to where one was."""
    node = observed.node
    is_link = node is not None and node.kind is LinkKind.SYMLINK
    return observed.dm is None and is_link and node is not None and node.target.startswith("../dm-")

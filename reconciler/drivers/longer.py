"""The part of the dm-snapshot driver about disks that are larger than their base.

Pure but for `look` and `base_loop`, which ask the kernel. May be imported by dm_snapshot, its
appraisal and survey.
"""

from __future__ import annotations

from typing import Final

from reconciler.actions import Action, AttachBase, CheckBase, GrowDm, MakeOrigin, RemoveOrigin
from reconciler.kernel.port import Kernel
from statemachine.names import DmUuid, origin_name, origin_owner, origin_uuid
from statemachine.observed import DmDevice, Loop, ObservedDisk, SnapshotTable
from statemachine.record import Record

LOOP_MAJOR: Final = 7  # LOOP_MAJOR of linux/major.h


def is_longer(record: Record) -> bool:
    """Tell whether a disk is to be larger than its base."""
    return record.size > record.base.size


def look(kernel: Kernel, record: Record, dm: DmDevice | None) -> DmDevice | None:
    """Look for a disk's own origin where there should be one, or something stands on one."""
    stands_on = dm is not None and dm.table is not None and dm.table.origin.major != LOOP_MAJOR
    if not (is_longer(record) or stands_on):
        return None
    return kernel.dm(origin_name(record.device_name))


def base_loop(kernel: Kernel, table: SnapshotTable, origin: DmDevice | None) -> Loop | None:
    """Return the base's loop below a live table, through the disk's own origin if it has one."""
    if table.origin.major == LOOP_MAJOR:
        return kernel.loop(table.origin.minor, named=False)
    if origin is None or origin.device != table.origin or origin.origin is None:
        return None
    return kernel.loop(origin.origin.base.minor, named=False)


def is_ours(record: Record, origin: DmDevice | None) -> bool:
    """Tell whether an origin is the disk's own."""
    return origin is not None and origin.uuid == origin_uuid(record.id, record.generation)


def make(record: Record) -> list[Action]:
    """Plan the origin of a disk that is larger than its base, over the base's loop."""
    if not is_longer(record):
        return []
    return [
        MakeOrigin(
            origin_name(record.device_name),
            origin_uuid(record.id, record.generation),
            record.base.size.sectors_exact(),
            record.size.sectors_exact(),
        )
    ]


def remove(record: Record, observed: ObservedDisk) -> list[Action]:
    """Plan the end of the disk's own origin, once the device above it is gone."""
    if not (is_longer(record) or is_ours(record, observed.origin)):
        return []
    uuid = origin_uuid(record.id, record.generation)
    return [RemoveOrigin(origin_name(record.device_name), uuid)]


def grow(record: Record, observed: ObservedDisk) -> list[Action]:
    """Plan a longer table for a live device that is shorter than its disk is to be."""
    table = observed.dm.table if observed.dm is not None else None
    if table is None or record.frozen is not None or not is_shorter(record, table):
        return []
    uuid = str(DmUuid(record.id, record.generation))
    return [
        CheckBase(record.wanted.base, record.base),
        AttachBase(record.wanted.base),
        *make(record),
        GrowDm(record.device_name, uuid, record.size.sectors_exact()),
    ]


def is_shorter(record: Record, table: SnapshotTable) -> bool:
    """Tell whether a live table is to be made longer."""
    return table.length < record.size.sectors_exact()


def wrong(record: Record, observed: ObservedDisk, table: SnapshotTable) -> str:
    """Say what is wrong with the length of a live table, and with an origin under it; "" if none.

    A disk that was just said to be larger is right still: it is made so.
    """
    size, least = record.size.sectors_exact(), record.base.size.sectors_exact()
    if not least <= table.length <= size:
        return f"has {table.length.count} sectors, its disk {record.size.count} bytes"
    if table.origin.major == LOOP_MAJOR:
        return ""
    below = observed.origin
    if below is None or below.device != table.origin or not is_ours(record, below):
        return f"is over device {table.origin}, not over its base"
    if below.origin is None or below.origin.base_length != least:
        return f"is over {below.name}, which has another table than its base and zeros"
    return ""


def defects(record: Record, observed: ObservedDisk) -> tuple[str, ...]:
    """Name a live device that is shorter than its disk is to be; a frozen one waits."""
    table = observed.dm.table if observed.dm is not None else None
    if table is None or record.frozen is not None or not is_shorter(record, table):
        return ()
    length = table.length.to_bytes().count
    return (f"{record.device_name} has {length} bytes, its spec says {record.size.count}",)


def left(record: Record, observed: ObservedDisk) -> tuple[str, ...]:
    """Name the origin that a disk below live still has."""
    found = observed.origin
    return (f"device {found.name}",) if found is not None and is_ours(record, found) else ()


def owner_of(uuid: str) -> DmUuid | None:
    """Return whose device it is, the disk's own or its origin; None if it is not ours."""
    return DmUuid.parse(uuid) or origin_owner(uuid)


def devices_of(record: Record) -> dict[str, str]:
    """Return the devices that a disk may have, by UUID, and what each is named."""
    return {
        str(DmUuid(record.id, record.generation)): record.device_name,
        origin_uuid(record.id, record.generation): origin_name(record.device_name),
    }

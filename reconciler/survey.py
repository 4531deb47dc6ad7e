"""One look at the whole host, for a full resync: which disks differ from their records.

A pass asks some ten questions about one disk. That is right for one, and too much for thousands
that are as they should be. A survey asks for the kernel's lists once and compares each record with
them; whatever it is not sure of gets a pass, which decides. So it may wake a disk for nothing, and
must never call one quiet that a pass would act upon.

What it does not do: it decides nothing and changes nothing. May be imported by daemon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from reconciler.config import Settings
from reconciler.drivers import jailing, longer
from reconciler.drivers.cow_room import freeze_above, grow_above
from reconciler.kernel.port import DmName, Kernel
from reconciler.root import Root
from reconciler.space import SpaceLevel
from statemachine.fileidentity import FileIdentity
from statemachine.machine import LIVE, State
from statemachine.names import UUID_PREFIX, disk_uuid, origin_name, origin_uuid
from statemachine.observed import DmDevice, Loop, SnapshotHealth, SnapshotTable
from statemachine.record import Record
from statemachine.spec import DriverChoice

MAPPER: Final = Path("/dev/mapper")


@attrs.frozen(kw_only=True)
class Survey:
    """What the host showed at one moment."""

    boot_id: str
    devices: Mapping[str, DmDevice]
    """Ours, by UUID."""
    cows: Mapping[str, FileIdentity]
    """The files in the root's CoW folder, by name."""
    nodes: Mapping[str, str]
    """The texts of the symlinks in /dev/mapper, by name."""
    names: tuple[DmName, ...]
    """All dm devices, ours or not."""
    loops: tuple[int, ...]
    """The numbers of all loop devices that are bound."""
    level: SpaceLevel
    cow_levels: tuple[int, ...]


def take(kernel: Kernel, root: Root, settings: Settings) -> Survey:
    """Look at the host once.

    Raises:
        ActionError: a question to the kernel failed.
    """
    free = kernel.free_space(root.cows)
    space = settings.watermarks.judge(available=free.available, total=free.total)
    return Survey(
        boot_id=kernel.boot_id(),
        names=kernel.dm_names(),
        loops=kernel.loop_numbers(),
        devices={device.uuid: device for device in kernel.dm_devices()},
        cows=kernel.files_in(root.cows),
        nodes=kernel.links_in(MAPPER),
        level=space.level,
        cow_levels=settings.cow_levels,
    )


def has_strangers(records: Sequence[Record], survey: Survey, kernel: Kernel) -> bool:
    """Tell whether there is something that may be ours and that no record accounts for.

    A search for orphans is due then, which decides. Like `is_quiet`, this may be wrong in one
    direction only.

    Args:
        records: of all disks in use.
        survey: what was seen, before or after the records were read.
        kernel: asked about the loops that no record has.
    """
    devices = {disk_uuid(each.id, each.generation): each.device_name for each in records}
    devices |= {
        origin_uuid(each.id, each.generation): origin_name(each.device_name)
        for each in records
        if longer.is_longer(each)
    }
    if any(devices.get(device.uuid) != device.name for device in survey.devices.values()):
        return True
    files = {each.cow_path.rpartition("/")[2] for each in records}
    if any(name not in files for name in survey.cows):
        return True
    minors = {f"../dm-{each.device.minor}" for each in survey.names}
    if any(text.startswith("../dm-") and text not in minors for text in survey.nodes.values()):
        return True
    used = {each.cow_loop for each in records} | {each.base_loop for each in records}
    return any(
        _is_marked(kernel.loop(number, named=False))
        for number in survey.loops
        if number not in used
    )


def _is_marked(loop: Loop | None) -> bool:
    return loop is not None and loop.marker.startswith(UUID_PREFIX)


def is_quiet(record: Record, survey: Survey, kernel: Kernel) -> bool:
    """Tell whether a disk is at rest and the host shows what its record says.

    Args:
        record: the disk.
        survey: what was seen.
        kernel: asked for what no list has: the disk's link, its node in a jail, and direct IO where
            that is wanted.
    """
    if record.driver == DriverChoice.CLONE or not _is_at_rest(record):
        return False
    if record.state is State.REMOVED:
        return True
    cow = survey.cows.get(record.cow_path.rpartition("/")[2])
    if record.cow is None or cow is None or record.cow_boot_id != survey.boot_id:
        return False
    if (cow.device, cow.inode) != (record.cow.device, record.cow.inode):
        return False
    device = survey.devices.get(disk_uuid(record.id, record.generation))
    if record.state is State.PAUSED:
        return device is None and record.device_name not in survey.nodes
    return (
        record.state in LIVE
        and device is not None
        and cow.size == record.cow.size
        and _is_as_recorded(record, device, survey)
        and _has_its_link(record, kernel)
        and jailing.is_as_recorded(record, kernel)
        and _has_its_io(record, kernel)
    )


def _is_at_rest(record: Record) -> bool:
    return (
        record.in_flight is None
        and record.failure is None
        and record.fault is None
        and record.frozen is None
        and record.is_met
    )


def _is_as_recorded(record: Record, device: DmDevice, survey: Survey) -> bool:
    table, status = device.table, device.status
    if table is None or status is None or status.health is not SnapshotHealth.VALID:
        return False
    return (
        device.name == record.device_name
        and str(device.device) == record.device_number
        and not device.suspended
        and (_base_below(record, table, survey), table.cow.minor)
        == (record.base_loop, record.cow_loop)
        and table.length.to_bytes() == record.size
        and survey.nodes.get(record.device_name) == f"../dm-{device.device.minor}"
        and survey.level is not SpaceLevel.CRITICAL
        and not _wants_room(record, device, survey)
    )


def _base_below(record: Record, table: SnapshotTable, survey: Survey) -> int | None:
    """Return the number of the base's loop, through the origin of a disk larger than its base."""
    if table.origin.major == longer.LOOP_MAJOR:
        return table.origin.minor
    below = survey.devices.get(origin_uuid(record.id, record.generation))
    if below is None or below.device != table.origin or below.suspended or below.origin is None:
        return None
    return below.origin.base.minor


def _wants_room(record: Record, device: DmDevice, survey: Survey) -> bool:
    """Tell whether its CoW might have to be grown, frozen, or told of."""
    status, cow = device.status, record.cow
    assert status is not None
    assert cow is not None
    used, capacity = status.used.to_bytes().count, status.total.to_bytes().count
    due = [capacity * level // 100 for level in survey.cow_levels if level > record.cow_level]
    if record.wanted.cow_size is not None or record.wanted.cow_max is not None:
        chunk = record.wanted.chunk_size
        due += [grow_above(capacity, chunk), freeze_above(capacity)]
    return capacity != cow.size.count or used >= min(due, default=capacity + 1)


def _has_its_io(record: Record, kernel: Kernel) -> bool:
    """Tell whether the loop of a disk with direct IO still has it; others are not looked at."""
    if not record.wanted.direct_io:
        return True
    loop = None if record.cow_loop is None else kernel.loop(record.cow_loop, named=False)
    return loop is not None and loop.direct_io


def _has_its_link(record: Record, kernel: Kernel) -> bool:
    wanted = record.wanted.link
    if wanted is None:
        return not record.link
    return record.link == str(wanted) and kernel.read_link(wanted).target == record.device

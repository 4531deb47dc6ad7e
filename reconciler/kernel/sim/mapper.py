"""Device-mapper in memory: devices with a live and an inactive table, by name and by UUID.

Minor numbers are the lowest free ones and reused at once. A device without a table has no node.
Raises OSError as the ioctls do. Source: drivers/md/dm-ioctl.c and dm.c of 6.1, measured
(tests/contract). May be imported by the rooms of `sim` only.
"""

from __future__ import annotations

import errno
import heapq
from typing import Final, Protocol

from reconciler.kernel.sim.files import os_error
from reconciler.kernel.sim.loops import Loops
from reconciler.kernel.sim.origin import Origin
from reconciler.kernel.sim.snapshot import Snapshot, Zero
from statemachine.observed import DeviceNumber, DmDevice, Holder, OriginTable, SnapshotTable

DM_MAJOR: Final = 253  # dynamic; 254 in some guests
_NAME_BYTES_MAX: Final = 127
AnyTarget = Snapshot | Origin | Zero


class Listener(Protocol):
    """Who is told about devices: the host, which plays devtmpfs, udev and uevents."""

    def dm_appeared(self, device: MappedDevice) -> None:
        """Take note: the first table was loaded, the device has a node now (since 5.15)."""

    def dm_changed(self, device: MappedDevice) -> None:
        """Take note: it was resumed, or had an event."""

    def dm_removed(self, device: MappedDevice) -> None:
        """Take note: it is gone."""


class MappedDevice:
    """One dm device."""

    __slots__ = ("claims", "event_nr", "handles", "inactive", "live", "minor", "name", "node_made",
                 "number", "suspended", "udev_until_call", "udev_until_s", "uuid")  # fmt: skip

    def __init__(self, name: str, uuid: str, minor: int) -> None:
        self.name = name
        self.uuid = uuid
        self.minor = minor
        self.number: Final = DeviceNumber(DM_MAJOR, minor)
        self.live: AnyTarget | None = None
        self.inactive: AnyTarget | None = None
        self.claims: dict[int, int] = {}
        """Tables of other dm devices that opened it, by minor."""
        self.suspended = False
        self.event_nr = 0
        self.handles: list[Holder] = []
        self.node_made = False
        self.udev_until_call = 0
        """udev has it open until this many calls were made,"""
        self.udev_until_s = 0.0
        """or until the monotonic clock says this."""

    @property
    def sysname(self) -> str:
        """What the kernel calls it."""
        return f"dm-{self.minor}"

    def observed(self, open_count: int) -> DmDevice:
        """Return what DM_DEV_STATUS and DM_TABLE_STATUS show."""
        target = self.live if isinstance(self.live, Snapshot) else None
        return DmDevice(
            name=self.name,
            uuid=self.uuid,
            device=self.number,
            suspended=self.suspended,
            open_count=open_count,
            live=self.live is not None,
            table=target.table_now() if target else None,
            status=target.status() if target else None,
            event_nr=self.event_nr,
            origin=self.live.table if isinstance(self.live, Origin) else None,
        )

    @property
    def sectors(self) -> int:
        """How long it is."""
        return self.live.length.count if self.live is not None else 0

    @property
    def is_snapshot(self) -> bool:
        """Whether its live table is a snapshot."""
        return isinstance(self.live, Snapshot)

    @property
    def is_valid(self) -> bool:
        """Whether its snapshot, if it has one, was not lost."""
        target = self.live
        return not isinstance(target, Snapshot) or target.store is None or target.store.valid

    def read(self, offset: int, length: int) -> bytes:
        """Read; EIO without a table. A suspended device would block: EAGAIN here."""
        return self._target().read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        """Write; EIO if it cannot be kept, which may have made the snapshot invalid."""
        if not self._target().write(offset, data):
            raise os_error(errno.EIO, self.sysname)

    def _target(self) -> AnyTarget:
        if self.suspended:
            raise os_error(errno.EAGAIN, f"{self.sysname} is suspended: a real caller would hang")
        if self.live is None:
            raise os_error(errno.EIO, self.sysname)
        return self.live


class Mapper:
    """All dm devices."""

    __slots__ = ("_by_minor", "_by_name", "_by_uuid", "_free", "_listener", "_loops", "_sharing")

    def __init__(self, loops: Loops, listener: Listener) -> None:
        self._by_name: dict[str, MappedDevice] = {}
        self._by_uuid: dict[str, MappedDevice] = {}
        self._by_minor: dict[int, MappedDevice] = {}
        self._free: list[int] = []
        self._sharing: dict[int, list[tuple[MappedDevice, Snapshot]]] = {}
        """All loaded snapshots by the number of their CoW loop."""
        self._loops = loops
        self._listener = listener

    def devices(self) -> list[MappedDevice]:
        """Return all, by minor."""
        return [self._by_minor[minor] for minor in sorted(self._by_minor)]

    def by_name(self, name: str) -> MappedDevice | None:
        """Return the device of this name."""
        return self._by_name.get(name)

    def by_minor(self, minor: int) -> MappedDevice | None:
        """Return the device of this number."""
        return self._by_minor.get(minor)

    def by_uuid(self, uuid: str) -> MappedDevice:
        """Return the device of this UUID; ENXIO if there is none."""
        device = self._by_uuid.get(uuid)
        if device is None:
            raise os_error(errno.ENXIO, uuid)
        return device

    def create(self, name: str, uuid: str) -> MappedDevice:
        """Make a device without a table; EBUSY if the name or the UUID is taken."""
        if not name or "/" in name or len(name.encode()) > _NAME_BYTES_MAX:
            raise os_error(errno.EINVAL, name)
        if name in self._by_name or (uuid and uuid in self._by_uuid):
            raise os_error(errno.EBUSY, name)
        device = MappedDevice(name, uuid, self._take_minor())
        self._by_name[name] = device
        self._by_minor[device.minor] = device
        if uuid:
            self._by_uuid[uuid] = device
        return device

    def load(self, device: MappedDevice, table: SnapshotTable | OriginTable) -> None:
        """Load a table into the inactive slot, replacing what is there.

        Raises:
            OSError: see `Snapshot` and `Store.open`; EINVAL also if the same two devices are in a
                table that was loaded and is not live.
        """
        if isinstance(table, OriginTable):
            self.put_inactive(device, Origin(table, device.minor, self._loops))
            return
        below = self._by_minor.get(table.origin.minor) if table.origin.major == DM_MAJOR else None
        target = Snapshot(table, device.minor, self._loops, below)
        try:
            if self._source_of(target) is None:
                target.open_store()
            target.check_size()
        except OSError:
            target.close()
            raise
        self._sharing.setdefault(target.cow.number, []).append((device, target))
        self.put_inactive(device, target)

    def put_inactive(self, device: MappedDevice, target: AnyTarget) -> None:
        """Put a target into the inactive slot; the first one gives the device its node."""
        self._drop(device.inactive)
        device.inactive = target
        if not device.node_made:
            device.node_made = True
            self._listener.dm_appeared(device)

    def resume(self, device: MappedDevice) -> None:
        """Make the inactive table live, and let IO go on.

        Raises:
            OSError: EINVAL for a suspended device without a table, and where the exceptions
                would have to come from a live device; the new table then stays, suspended.
        """
        old = device.live
        if device.inactive is not None:
            device.live, device.inactive = device.inactive, None
            device.suspended = True
        if not device.suspended:
            return
        if device.live is None:
            raise os_error(errno.EINVAL, device.name)
        try:
            self._activate(device.live)
        finally:
            if old is not device.live:
                self._drop(old)
        device.suspended = False
        self._listener.dm_changed(device)

    def give_uuid(self, device: MappedDevice, uuid: str) -> None:
        """Give a device its UUID, once; EINVAL if it has one, EBUSY if another has this."""
        if uuid in self._by_uuid:
            raise os_error(errno.EBUSY, uuid)
        if device.uuid:
            raise os_error(errno.EINVAL, device.name)
        device.uuid = uuid
        self._by_uuid[uuid] = device
        self._listener.dm_changed(device)

    def rename(self, device: MappedDevice, name: str) -> None:
        """Give a device another name; EBUSY if that is taken."""
        if name in self._by_name:
            raise os_error(errno.EBUSY, name)
        del self._by_name[device.name]
        device.name = name
        self._by_name[name] = device

    def suspend(self, device: MappedDevice) -> None:
        """Stop IO; also of a device without a table."""
        device.suspended = True

    def remove(self, device: MappedDevice) -> None:
        """Remove a device that nobody has open (the caller has looked)."""
        del self._by_name[device.name]
        del self._by_minor[device.minor]
        self._by_uuid.pop(device.uuid, None)
        heapq.heappush(self._free, device.minor)
        live, inactive, device.live, device.inactive = device.live, device.inactive, None, None
        self._drop(inactive)
        self._drop(live)
        self._listener.dm_removed(device)

    def write(self, device: MappedDevice, offset: int, data: bytes) -> None:
        """Write to a device; a snapshot that is lost by it counts an event."""
        was_valid = device.is_valid
        try:
            device.write(offset, data)
        finally:
            if was_valid and not device.is_valid:
                device.event_nr += 1
                self._listener.dm_changed(device)

    def above(self, loop_number: int) -> list[MappedDevice]:
        """Return the devices that have a loop open."""
        loop = self._loops.get(loop_number)
        return [self._by_minor[minor] for minor in loop.claims] if loop else []

    def _source_of(self, target: Snapshot) -> tuple[MappedDevice, Snapshot] | None:
        """Find the live table whose exceptions a new one on the same devices must take over."""
        sharing = [each for each in self._sharing.get(target.cow.number, ())
                   if each[1] is not target and each[1].shares_with(target)]  # fmt: skip
        if len(sharing) > 1 or any(not snapshot.active for _, snapshot in sharing):
            raise os_error(errno.EINVAL, "snapshot cow pairing for exception table handover failed")
        return sharing[0] if sharing else None

    def _activate(self, target: AnyTarget) -> None:
        """Let a table serve IO; it takes over the exceptions of the one before it, if need be."""
        if not isinstance(target, Snapshot):
            return
        if target.store is None and not target.active:
            source = self._source_of(target)
            if source is None:  # it was removed meanwhile
                target.open_store()
            elif not source[0].suspended:
                raise os_error(errno.EINVAL, f"{source[0].name} is not suspended")
            else:
                target.take_over(source[1])
        target.active = True

    def _drop(self, target: AnyTarget | None) -> None:
        if isinstance(target, Snapshot):
            sharing = self._sharing[target.cow.number]
            sharing[:] = [each for each in sharing if each[1] is not target]
            if not sharing:
                del self._sharing[target.cow.number]
        if target is not None:
            target.close()

    def _take_minor(self) -> int:
        return heapq.heappop(self._free) if self._free else len(self._by_minor)

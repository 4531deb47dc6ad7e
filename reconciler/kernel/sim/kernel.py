"""The Kernel port in memory: `SimKernel`.

Each method is one step of the port: it passes the scripted misfortune (`faults`), takes the lock,
and does to the simulated host what Linux does to a real one. The user's side of the same object,
which VMMs and administrators play in tests, is in `users`.

Knowingly unlike a real kernel: it never waits (an EBUSY comes at once), IO of a suspended device
raises EAGAIN instead of hanging, there is no page cache above a device, and see `snapshot` for the
targets that are missing. May be imported by tests, `byre bench` and `byre chaos`.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

from reconciler.clock import Clock, FakeClock
from reconciler.kernel.port import Capabilities, CowHeader, DmName, FreeSpace, Kernel
from reconciler.kernel.sim import filecalls
from reconciler.kernel.sim.compaction import StoreSide
from reconciler.kernel.sim.copies import CopySide
from reconciler.kernel.sim.faults import TRACE_MAX, Call, Faults
from reconciler.kernel.sim.files import os_error
from reconciler.kernel.sim.host import NO_DEVICE, Host, why_not
from reconciler.kernel.sim.images import ImageSide
from reconciler.kernel.sim.jails import JailSide
from reconciler.kernel.sim.loops import LoopDevice, check_same
from reconciler.kernel.sim.step import change, question
from reconciler.kernel.sim.taking import TakingSide
from reconciler.kernel.sim.users import UserSide
from statemachine.errors import ForeignDevice, IdentityMismatch
from statemachine.fileidentity import FileIdentity
from statemachine.names import UUID_PREFIX
from statemachine.observed import (
    DeviceNumber,
    DmDevice,
    Holder,
    LinkObservation,
    Loop,
    OriginTable,
    SnapshotTable,
)
from statemachine.units import DEFAULT_CHUNK, Bytes


class SimKernel(UserSide, JailSide, TakingSide, CopySide, StoreSide, ImageSide, Kernel):
    """The port in memory; see `port` for each method's contract.

    Args:
        clock: for mtimes and for how long udev holds devices; the default stands still.
        capacity: the room of the root file system, None for 1 TiB.
        reuse_inodes: whether a new file gets the inode number of a deleted one, as on ext4.
        trace_max: how many of the last calls are kept, with all that they were given and returned.

    Attributes:
        host: the state, with the options that a test may set (see `Host`).
        faults: what goes wrong, and the trace of calls.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        capacity: Bytes | None = None,
        reuse_inodes: bool = False,
        trace_max: int = TRACE_MAX,
    ) -> None:
        host = Host(clock or FakeClock(), capacity=capacity, reuse_inodes=reuse_inodes)
        super().__init__(host)
        self.faults = Faults(trace_max)
        host.calls = lambda: self.faults.calls

    @property
    def trace(self) -> tuple[Call, ...]:
        """The calls so far; see `Faults.trace`."""
        return self.faults.trace

    # --- questions ---------------------------------------------------------------------------

    @question
    def capabilities(self) -> Capabilities:
        """Say what the host's options allow."""
        return Capabilities(
            dm=why_not("device-mapper", self.host.dm_errno),
            loop=why_not("loop devices", self.host.loop_errno),
        )

    @question
    def boot_id(self) -> str:
        """Return which boot this is."""
        return self.host.boot_id

    @question
    def identify(self, path: Path, *, follow: bool = False) -> FileIdentity | None:
        """Return which file is at a path, None if there is none."""
        return filecalls.identify(self.host, path, follow=follow)

    @question
    def readable(self, path: Path) -> bool:
        """Tell whether this process can open the file for reading."""
        return filecalls.readable(self.host, path)

    @question
    def is_open(self, path: Path) -> bool:
        """Tell whether anybody has a file open; True when that cannot be told."""
        return filecalls.is_open(self.host, path)

    @question
    def list_folder(self, path: Path) -> tuple[str, ...]:
        """Return the sorted names in a folder; empty when it does not exist."""
        return filecalls.list_folder(self.host, path)

    @question
    def cow_header(self, path: Path, chunk: Bytes = DEFAULT_CHUNK) -> CowHeader:
        """Read the first 16 bytes of a CoW file with such chunks and say what they are."""
        return filecalls.cow_header(self.host, path, chunk)

    @question
    def allocated(self, path: Path | str) -> Bytes:
        """Return how many bytes a file occupies; 0 when it is missing."""
        return filecalls.allocated(self.host, Path(path))

    @question
    def free_space(self, path: Path) -> FreeSpace:
        """Return the room on the file system of the nearest existing parent of a path."""
        return filecalls.free_space(self.host, path)

    @question
    def loops(self) -> tuple[Loop, ...]:
        """Return all bound loop devices, by number; none where they cannot be read."""
        if self.host.loop_errno:
            return ()
        seen = (loop.observed() for loop in self.host.loops.bound())
        return tuple(loop for loop in seen if loop is not None)

    @question
    def loop_numbers(self) -> tuple[int, ...]:
        """Return the numbers of all bound loop devices."""
        if self.host.loop_errno:
            return ()
        return tuple(loop.number for loop in self.host.loops.bound())

    @question
    def loop(self, number: int, *, named: bool = True) -> Loop | None:
        """Return one loop device if it is bound."""
        del named
        loop = self.host.loops.get(number)
        return None if loop is None or self.host.loop_errno else loop.observed()

    @question
    def dm_names(self) -> tuple[DmName, ...]:
        """Return all dm devices of the host, ours or not; empty without device-mapper."""
        if self.host.dm_errno in NO_DEVICE:
            return ()
        self.host.need_dm()
        return tuple(
            DmName(name=device.name, uuid=device.uuid, device=device.number)
            for device in self.host.mapper.devices()
        )

    @question
    def dm(self, name: str) -> DmDevice | None:
        """Return one dm device with its table and status."""
        if self.host.dm_errno in NO_DEVICE:
            return None
        self.host.need_dm()
        device = self.host.mapper.by_name(name)
        return None if device is None else device.observed(self.host.open_count(device))

    @question
    def dm_devices(self) -> tuple[DmDevice, ...]:
        """Return all dm devices with a UUID of ours, with table and status."""
        if self.host.dm_errno in NO_DEVICE:
            return ()
        self.host.need_dm()
        ours = (d for d in self.host.mapper.devices() if d.uuid.startswith(UUID_PREFIX))
        return tuple(device.observed(self.host.open_count(device)) for device in ours)

    @question
    def files_in(self, folder: Path) -> Mapping[str, FileIdentity]:
        """Return what is in a folder, by name; nothing when it does not exist."""
        return filecalls.files_in(self.host, folder)

    @question
    def links_in(self, folder: Path) -> Mapping[str, str]:
        """Return the texts of the symlinks in a folder, by name."""
        return filecalls.links_in(self.host, folder)

    @question
    def read_link(self, path: Path) -> LinkObservation:
        """Return what is at a path where a link or node should be, without following it."""
        return filecalls.read_link(self.host, path)

    @question
    def real_path(self, path: Path) -> Path:
        """Return a path with all its symlinks resolved."""
        return self.host.tree.real(path)

    @question
    def holders(self, device: DeviceNumber) -> tuple[Holder, ...]:
        """Return who has a device open: dm devices above, then users."""
        found = self.host.device_of(device)
        if found is None:
            return ()
        above = self.host.mapper.above(device.minor) if isinstance(found, LoopDevice) else ()
        named = (Holder(kind="dm", name=each.name) for each in above)
        return tuple(dict.fromkeys((*named, *found.handles)))

    # --- files -------------------------------------------------------------------------------

    @change
    def create_sparse(self, path: Path, size: Bytes) -> FileIdentity:
        """Make a new sparse file of this size, durable with its folder entry."""
        return filecalls.create_sparse(self.host, path, size)

    @change
    def grow_file(self, path: Path, expected: FileIdentity, size: Bytes) -> bool:
        """Make a file this large if it is still the expected one. False if it is already."""
        return filecalls.grow_file(self.host, path, expected, size)

    @change
    def remove_file(self, path: Path, expected: FileIdentity) -> bool:
        """Unlink a file if it is still the expected one; durable. False if gone."""
        return filecalls.remove_file(self.host, path, expected)

    # --- loop devices ------------------------------------------------------------------------

    @change
    def loop_attach(
        self,
        path: Path,
        expected: FileIdentity,
        *,
        marker: str,
        read_only: bool,
    ) -> Loop:
        """Bind the lowest free loop device to a file that is still the expected one."""
        file = filecalls.open_for_loop(self.host, path, expected, read_only=read_only)
        self.host.need_loop()
        loop = self.host.loops.attach(file, marker=marker, read_only=read_only)
        observed = loop.observed()
        assert observed is not None
        return observed

    @change
    def loop_set_autoclear(self, loop: Loop) -> bool:
        """Let the kernel detach this loop when its last opener goes. False if it was set."""
        device = self._same_loop(loop)
        if device is None or device.autoclear:
            return False
        self.host.loops.clear(device)
        return True

    @change
    def loop_keep(self, loop: Loop) -> bool:
        """Take autoclear back. False if the loop is gone."""
        device = self._same_loop(loop)
        if device is None:
            return False
        device.autoclear = False
        return True

    @change
    def loop_grow(self, loop: Loop) -> bool:
        """Give a loop the size that its file has by now. False if it had it."""
        device = self._same_loop(loop)
        return device is not None and device.grow()

    @change
    def loop_set_direct_io(self, loop: Loop, *, on: bool) -> bool:
        """Have a loop go past the page cache, or not. False if it did so already, or is gone."""
        device = self._same_loop(loop)
        return device is not None and device.set_direct_io(on=on)

    @change
    def loop_detach(self, loop: Loop) -> bool:
        """Detach a loop if it still backs the same file. False if it does not exist any more."""
        device = self._same_loop(loop)
        if device is None:
            return False
        if device.in_use:
            raise os_error(errno.EBUSY, loop.path)
        self.host.loops.clear(device)
        return True

    # --- device-mapper -----------------------------------------------------------------------

    @change
    def dm_create(self, name: str, uuid: str) -> DeviceNumber:
        """Make a dm device without a table; EBUSY (transient) if the name or UUID exists."""
        self.host.need_dm()
        return self.host.mapper.create(name, uuid).number

    @change
    def dm_load(self, uuid: str, table: SnapshotTable | OriginTable) -> None:
        """Load a table into the inactive slot; opens the devices named in it."""
        self.host.need_dm()
        self.host.mapper.load(self.host.mapper.by_uuid(uuid), table)

    @change
    def dm_resume(self, uuid: str) -> bool:
        """Make the loaded table live, or resume a suspended device. False if it was so."""
        self.host.need_dm()
        device = self.host.mapper.by_uuid(uuid)
        if device.live is None and device.inactive is None:
            raise os_error(errno.EINVAL, uuid)
        if device.inactive is None and not device.suspended:
            return False
        self.host.mapper.resume(device)
        return True

    @change
    def dm_suspend(self, uuid: str) -> bool:
        """Stop IO, once what is in flight is done. False if it was suspended."""
        self.host.need_dm()
        device = self.host.mapper.by_uuid(uuid)
        if device.suspended:
            return False
        self.host.mapper.suspend(device)
        return True

    @change
    def dm_remove(self, name: str, uuid: str) -> bool:
        """Remove the device of this name if it has this UUID. False if there is none."""
        self.host.need_dm()
        device = self.host.mapper.by_name(name)
        if device is None:
            return False
        if device.uuid != uuid:
            ours = device.uuid.startswith(UUID_PREFIX)
            refused = IdentityMismatch if ours else ForeignDevice
            raise refused(f"dm device {name} has the UUID {device.uuid!r}, not {uuid!r}")
        self.host.remove_dm(device)
        return True

    @question
    def flush_ahead(self, uuid: str) -> bool:
        """Have nothing to do: there is no page cache above a device here."""
        del uuid
        return False

    # --- nodes, links, folders ---------------------------------------------------------------

    @change
    def ensure_node(self, device: DeviceNumber, path: Path) -> bool:
        """Make the block device node if it is missing (no devtmpfs). False if it was there."""
        return filecalls.ensure_node(self.host, device, path)

    @change
    def put_link(self, path: Path, target: str, *, replaces: str | None) -> bool:
        """Make `path` a symlink to `target`, atomically. False if it is that already."""
        return filecalls.put_link(self.host, path, target, replaces=replaces)

    @change
    def drop_link(self, path: Path, target: str) -> bool:
        """Remove the symlink at `path` if its text is `target`. False if nothing is there."""
        return filecalls.drop_link(self.host, path, target)

    @change
    def make_folder(self, path: Path) -> bool:
        """Make one folder, 0755. False if it exists."""
        return filecalls.make_folder(self.host, path)

    @change
    def remove_folder(self, path: Path) -> bool:
        """Remove one folder if it is empty. False if it is not, or is gone."""
        return filecalls.remove_folder(self.host, path)

    # --- helpers -----------------------------------------------------------------------------

    def _same_loop(self, loop: Loop) -> LoopDevice | None:
        """Find a loop that shall be changed; None if it is not bound any more."""
        self.host.need_loop()
        device = self.host.loops.get(loop.number)
        now = device.observed() if device else None
        if now is None:
            return None
        check_same(loop, now)
        return device

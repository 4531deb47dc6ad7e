"""The simulated host: files, loops and dm devices together, with devtmpfs, udev and reboots.

It holds the state and the one lock; `kernel` is the port on it and `users` everybody else.
What a device's life does to /dev, to udev and to whoever listens for uevents is here.

Raises OSError. May be imported by the rooms of `sim` only.
"""

from __future__ import annotations

import errno
import functools
import threading
import uuid
from collections.abc import Callable
from typing import Final

from reconciler.clock import Clock
from reconciler.kernel.sim.files import (
    PAGE_BYTES,
    BlockNode,
    File,
    FileSystem,
    Folder,
    Other,
    Symlink,
    os_error,
)
from reconciler.kernel.sim.loops import LOOP_MAJOR, LoopDevice, Loops
from reconciler.kernel.sim.mapper import DM_MAJOR, MappedDevice, Mapper
from reconciler.kernel.sim.tree import Tree
from statemachine.observed import DeviceNumber
from statemachine.units import SECTOR_BYTES, Bytes

ROOT_DEVICE: Final = 0x801
NO_DEVICE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO})
"""What opening a control node fails with where the kernel has no such driver."""
_DEV_DEVICE: Final = 5
_BOOT_NAMESPACE: Final = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")

WakeUp = Callable[[str], None]
"""Takes a kernel name: "dm-3", "loop2"."""


class _Entered:
    """The lock of a host for the length of a `with` block."""

    __slots__ = ("_host",)

    def __init__(self, host: Host) -> None:
        self._host = host

    def __enter__(self) -> None:
        self._host.enter()

    def __exit__(self, *_: object) -> None:
        self._host.leave()


class Host:
    """All state of the simulation. Its options may be changed at any time.

    Attributes:
        dm_errno: what every dm call fails with: ENODEV, EACCES; 0 when it works.
        loop_errno: the same for changes of loop devices.
        mknod_errno: what making a device node in a jail fails with: EPERM; 0 when it works.
        devtmpfs: whether nodes appear by themselves.
        udev_links: whether udev makes and removes /dev/mapper links.
        udev_hold_calls: for how many calls of the port udev has a device open after its resume.
        udev_hold_s: for how many seconds of the clock.
        unreadable: paths that this process may not open.
        has_verity: whether the file systems have fs-verity.
    """

    def __init__(self, clock: Clock, *, capacity: Bytes | None, reuse_inodes: bool) -> None:
        self.clock = clock
        self.dm_errno = 0
        self.loop_errno = 0
        self.mknod_errno = 0
        self.devtmpfs = True
        self.udev_links = False
        self.udev_hold_calls = 0
        self.udev_hold_s = 0.0
        self.unreadable: set[str] = set()
        self.has_verity = False
        self.calls: Callable[[], int] = lambda: 0
        self.boot = 0
        self.open_files: list[File] = []
        """Files that users have open, once for each time."""
        self._lock = threading.RLock()
        self.enter: Final = self._lock.acquire
        """Takes the lock; each time is given back by `leave`."""
        self._last_ns = 0
        self._mounts = 0
        self._listeners: list[WakeUp] = []
        self._due: list[str] = []
        pages = pages_floor(capacity)
        self.fs = FileSystem(ROOT_DEVICE, capacity_pages=pages, reuse_inodes=reuse_inodes)
        self.tree = Tree(self.fs, self.now_ns())
        self._start_kernel()

    # --- time, lock, listeners ----------------------------------------------------------------

    def entered(self) -> _Entered:
        """Hold the lock for a `with` block, as `enter` and `leave` do. Blocks are not nested."""
        return _Entered(self)

    def leave(self) -> None:
        """Give the lock back, then tell the listeners what changed meanwhile."""
        if not self._due:
            self._lock.release()
            return
        due, self._due = self._due, []
        listeners = tuple(self._listeners)
        self._lock.release()
        for name in dict.fromkeys(due):
            for listener in listeners:
                listener(name)

    def now_ns(self) -> int:
        """Return the wall clock, but never the same time twice: each write shows in an mtime."""
        self._last_ns = max(self._last_ns + 1, self.clock.now_ns())
        return self._last_ns

    def subscribe(self, listener: WakeUp) -> Callable[[], None]:
        """Tell somebody the names of devices that change; returns what ends it."""
        with self.entered():
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    @property
    def boot_id(self) -> str:
        """Which boot this is: the same text for the same count of reboots."""
        return _boot_id(self.boot)

    # --- devices ------------------------------------------------------------------------------

    def need_dm(self) -> None:
        """Fail as opening /dev/mapper/control would."""
        if self.dm_errno:
            raise os_error(self.dm_errno, "/dev/mapper/control")

    def need_loop(self) -> None:
        """Fail as opening /dev/loop-control would."""
        if self.loop_errno:
            raise os_error(self.loop_errno, "/dev/loop-control")

    def loop_changed(self, name: str) -> None:
        """Take note: a loop was bound or cleared."""
        if self.devtmpfs and self.tree.find(f"/dev/{name}") is None:
            self._add_node(DeviceNumber(LOOP_MAJOR, int(name.removeprefix("loop"))), name)
        self._due.append(name)

    def dm_appeared(self, device: MappedDevice) -> None:
        """Take note: the first table was loaded, devtmpfs makes the node."""
        if self.devtmpfs:
            self._add_node(device.number, device.sysname)
        self._due.append(device.sysname)

    def dm_changed(self, device: MappedDevice) -> None:
        """Take note: udev looks into the device, makes its link, and lets go after a while."""
        if self.udev_hold_calls:
            device.udev_until_call = self.calls() + self.udev_hold_calls
        if self.udev_hold_s:
            device.udev_until_s = self.clock.monotonic_s() + self.udev_hold_s
        if self.udev_links:
            self.udev_link(device)
        self._due.append(device.sysname)

    def dm_removed(self, device: MappedDevice) -> None:
        """Take note: the node goes, and udev takes its link away, not somebody else's."""
        if self.tree.find(f"/dev/{device.sysname}") is not None:
            self.tree.unlink(f"/dev/{device.sysname}")
        link = self.tree.find(f"/dev/mapper/{device.name}")
        if self.udev_links and isinstance(link, Symlink) and link.target == f"../{device.sysname}":
            self.tree.unlink(f"/dev/mapper/{device.name}")
        self._due.append(device.sysname)

    def udev_link(self, device: MappedDevice) -> None:
        """Make /dev/mapper/NAME, as udev does; what is there stays."""
        path = f"/dev/mapper/{device.name}"
        if self.tree.find(path) is None:
            target = f"../{device.sysname}"
            self.tree.add(path, Symlink(self.dev_fs, path, self.now_ns(), target))

    def udev_has_open(self, device: MappedDevice) -> bool:
        """Tell whether udev has not let go of a device yet."""
        if device.udev_until_call > 0 and self.calls() <= device.udev_until_call:
            return True
        return device.udev_until_s > 0 and self.clock.monotonic_s() < device.udev_until_s

    def open_count(self, device: MappedDevice) -> int:
        """How many have a dm device open, udev included."""
        return len(device.handles) + sum(device.claims.values()) + self.udev_has_open(device)

    def remove_dm(self, device: MappedDevice) -> None:
        """Remove a dm device; EBUSY while anybody has it open."""
        if self.open_count(device):
            raise os_error(errno.EBUSY, device.name)
        self.mapper.remove(device)

    def device_of(self, number: DeviceNumber) -> LoopDevice | MappedDevice | None:
        """Return the device behind a number."""
        if number.major == LOOP_MAJOR:
            return self.loops.get(number.minor)
        return self.mapper.by_minor(number.minor) if number.major == DM_MAJOR else None

    def device_bytes(self, number: DeviceNumber) -> int:
        """Return the size of the device behind a number, 0 if there is none."""
        device = self.device_of(number)
        if isinstance(device, LoopDevice):
            return device.sectors * SECTOR_BYTES
        live = device.live if device else None
        return live.length.to_bytes().count if live else 0

    # --- file systems, boots ------------------------------------------------------------------

    def mount(self, path: str, capacity: Bytes | None, *, reflink: bool) -> FileSystem:
        """Make a folder the root of a file system of its own."""
        self._mounts += 1
        pages = pages_floor(capacity)
        fs = FileSystem(ROOT_DEVICE + self._mounts, capacity_pages=pages, reflink=reflink)
        folder = self.tree.make_folders(path, self.now_ns())
        assert not folder.entries, f"{path} is not empty"
        folder.fs = fs
        folder.inode = fs.new_inode()
        return fs

    def reboot(self, *, lose_unsynced: bool, renumber: bool) -> None:
        """Start the kernel anew: devices and /dev are gone, files stay.

        Args:
            lose_unsynced: whether it was a power cut: what was not synced is gone.
            renumber: whether file systems get another st_dev, as some do.
        """
        for file in [loop.file for loop in self.loops.bound()] + self.open_files:
            if file is not None:
                file.release()
        self.open_files.clear()
        if lose_unsynced:
            self.tree.lose_unsynced()
        self.sync_all()
        if renumber:
            for fs in {node.fs for node in self.tree.nodes()}:
                fs.device += 0x100
        self.boot += 1
        self._start_kernel()

    def sync_all(self) -> None:
        """Make everything as it is survive a power cut: sync(2)."""
        for node in list(self.tree.nodes()):
            if isinstance(node, Folder | File):
                node.sync()

    def _start_kernel(self) -> None:
        self.loops = Loops(self.loop_changed, self.now_ns)
        self.mapper = Mapper(self.loops, self)
        self.dev_fs = FileSystem(_DEV_DEVICE)
        dev = self.tree.make_folders("/dev", self.now_ns())
        dev.fs = self.dev_fs
        dev.entries.clear()
        self.tree.make_folders("/dev/mapper", self.now_ns())
        for path in ("/dev/mapper/control", "/dev/loop-control"):
            self.tree.add(path, Other(self.dev_fs, path, self.now_ns()))
        dev.sync()

    def _add_node(self, number: DeviceNumber, name: str) -> None:
        path = f"/dev/{name}"
        if self.tree.find(path) is None:
            self.tree.add(path, BlockNode(self.dev_fs, path, self.now_ns(), number))


@functools.lru_cache(maxsize=8)
def _boot_id(boot: int) -> str:
    return str(uuid.uuid5(_BOOT_NAMESPACE, f"byre-sim-{boot}"))


def pages_floor(capacity: Bytes | None) -> int | None:
    """Return how many whole pages fit; None for no limit."""
    return None if capacity is None else capacity.count // PAGE_BYTES


def why_not(what: str, number: int) -> str:
    """Say why a driver cannot be used, by the errno of opening its control node; "" for 0."""
    if number == 0:
        return ""
    if number in NO_DEVICE:
        return f"this kernel has no {what}"
    return f"{what} cannot be used: {errno.errorcode[number]}; this needs root"

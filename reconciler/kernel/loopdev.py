"""Loop devices by ioctl and sysfs: attach, set autoclear, detach, look, list.

What a loop is on is read from the device itself (LOOP_GET_STATUS64), never from a path: a path
may be renamed, deleted or of another mount namespace (kubernetes 96888, 109132).

About (device, inode). The kernel fills lo_device and lo_inode by vfs_getattr() on the opened
path, the same function that serves stat(2); so on overlayfs and btrfs, whose files show another
st_dev than their super block's, both sides still say the same. lo_device comes in
huge_encode_dev(), which is the layout of a 12:20 bit st_dev, so the numbers compare as they are:
measured equal on ext4, tmpfs, xfs, btrfs (top and subvolume) and overlayfs on 6.18, on tmpfs and
overlayfs on 6.1. On a network file system that does not answer, the question hangs as stat would.

A change opens the device, checks what it is on, and acts, all through one descriptor: while that
is open the kernel lets nobody bind the number to something else. All descriptors but the one
that attaches are read-only, as closing a written one makes udev look at the device again.
What this module does not do: it scans no partitions and never asks udev.
Privilege: access to the nodes. May be imported by `linux`, `bench` and tests.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from pathlib import Path
from typing import Final

import attrs

from reconciler.kernel import ioctl
from reconciler.kernel.keptnode import KeptNode
from reconciler.kernel.loopinfo import (
    LoopInfo,
    bind,
    clear,
    get_size,
    get_status,
    give_up,
    raw_status,
    set_direct_io,
    set_status,
)
from statemachine.errors import IdentityMismatch
from statemachine.names import UUID_PREFIX
from statemachine.observed import DeviceNumber, Loop
from statemachine.units import SECTOR_BYTES, Sectors

LOOP_MAJOR: Final = 7  # include/uapi/linux/major.h
_ATTACH_TRIES_MAX: Final = 256
"""Others take free numbers meanwhile: one try is lost for each of them."""
_DETACH_DELAYS_S: Final = (0.002, 0.004, 0.008, 0.016, 0.016)
"""udev may look into the device just now; whoever still holds it after 46 ms is a user of it."""
_PAGE_BYTES: Final = 4096
_LOOKING: Final = os.O_RDONLY | os.O_NONBLOCK
_GONE: Final = frozenset({errno.ENXIO, errno.ENOENT, errno.ENODEV})


@attrs.frozen(kw_only=True)
class LoopDevices:
    """The host's loop devices, by nodes and sysfs; holds one descriptor, and what it saw last."""

    dev: Path
    sys: Path
    configure: bool = True
    """Whether to try LOOP_CONFIGURE (5.8); False is for the test of the older way."""
    control: KeptNode = attrs.field(init=False)
    """The node that hands out free numbers."""
    _seen: dict[int, tuple[bytes, int, Loop]] = attrs.field(init=False, factory=dict)
    """Our loops as they were seen last: what the kernel said, the size in bytes, and the value."""

    @control.default
    def _control(self) -> KeptNode:
        return KeptNode(self.dev / "loop-control")

    def bound(self) -> tuple[int, ...]:
        """Return the numbers of all loops with a backing file, by sysfs alone."""
        block = os.fspath(self.sys / "block")
        try:
            names = os.listdir(block)  # noqa: PTH208 - as text: there may be thousands
        except FileNotFoundError:
            return ()
        numbers = (name[4:] for name in names if name.startswith("loop") and name[4:].isdecimal())
        return tuple(
            sorted(int(n) for n in numbers if _exists(f"{block}/loop{n}/loop/backing_file"))
        )

    def look(self, number: int, *, named: bool = True) -> Loop | None:
        """Return one loop; None if it is not bound, or not to be read by us.

        Args:
            number: of the loop.
            named: whether its file's path must be the one of now.

        Raises:
            OSError: this process cannot open anything just now (`ioctl.OUT_OF_MEANS`); to say
                None then would make a disk look lost.
        """
        if named:
            self._seen.pop(number, None)
        try:
            descriptor = os.open(self._node(number), _LOOKING | os.O_CLOEXEC)
            try:
                return self._loop(number, descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in ioctl.OUT_OF_MEANS:
                raise
            return None

    def attach(self, file: int, *, path: str = "", marker: str, read_only: bool) -> Loop:
        """Bind a free loop to an open file; returns it as read back from the kernel.

        Args:
            file: the file, open as the loop is to be.
            path: what it is called, for people; asked of the kernel if it is not given.
            marker: whose it is.
            read_only: whether the loop refuses writes.

        Raises:
            OSError: EBUSY after losing 256 races for a free number in a row.
        """
        flags = ioctl.LO_FLAGS_READ_ONLY if read_only else 0
        info = LoopInfo(flags=flags, marker=marker)
        mode = os.O_RDONLY if read_only else os.O_RDWR
        for _ in range(_ATTACH_TRIES_MAX):
            # It stays free until somebody binds it (ignite 524, 711).
            number = ioctl.call(self.control.fileno(), ioctl.LOOP_CTL_GET_FREE)
            descriptor = self.open(number, mode | os.O_NONBLOCK)
            try:
                bind(descriptor, file, info, configure=self.configure)
                return self._bound_loop(number, descriptor, path)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            finally:
                os.close(descriptor)
        raise OSError(errno.EBUSY, "lost every race for a free loop device")

    def set_autoclear(self, loop: Loop) -> bool:
        """Let the kernel detach a loop when its last opener goes; at once if there is none.

        By LOOP_CLR_FD, which does exactly that to a loop in use. LOOP_SET_STATUS64 would write
        the other fields as well and stop the queue for it: 17.1 ms against 0.3 ms (median of 30,
        dm-snapshot on top, Linux 6.1 in QEMU). Both detach at once what nobody else has open.

        Returns:
            False if it was set already or the loop is gone.

        Raises:
            IdentityMismatch: the number is on another file now.
        """
        with _checked(self, loop) as (descriptor, info):
            if info is None or info.autoclear:
                return False
            give_up(descriptor)
        return True

    def keep(self, loop: Loop) -> bool:
        """Take autoclear back, by LOOP_SET_STATUS64; while we have it open it cannot go.

        Returns:
            False if it is gone.

        Raises:
            IdentityMismatch: the number is on another file now.
        """
        with _checked(self, loop) as (descriptor, info):
            if info is None:
                return False
            if info.autoclear:
                flags = info.flags & ~ioctl.LO_FLAGS_AUTOCLEAR
                set_status(descriptor, attrs.evolve(info, flags=flags))
        return True

    def grow(self, loop: Loop) -> bool:
        """Give a loop the size of its file; False if it has it or is gone.

        Raises:
            IdentityMismatch: the number is on another file now.
        """
        with _checked(self, loop) as (descriptor, info):
            if info is None:
                return False
            before = get_size(descriptor)
            ioctl.call(descriptor, ioctl.LOOP_SET_CAPACITY)
            return get_size(descriptor) != before

    def set_direct_io(self, loop: Loop, *, on: bool) -> bool:
        """Have a loop go past the page cache, or not; False if it did so already, or is gone.

        Raises:
            IdentityMismatch: the number is on another file now.
            OSError: EINVAL, its file cannot be used so.
        """
        with _checked(self, loop) as (descriptor, info):
            if info is None or info.direct_io == on:
                return False
            set_direct_io(descriptor, on=on)
        return True

    def detach(self, loop: Loop) -> bool:
        """Detach a loop, or find out within 46 ms that it is in use and leave it as it was.

        Returns:
            False if it is gone already.

        Raises:
            IdentityMismatch: the number is on another file now.
            OSError: EBUSY, it is in use.
        """
        with _checked(self, loop) as (descriptor, info):
            if info is None:
                return False
            if self._has_holders(loop.number):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            life = self._life(loop.number)
            if clear(descriptor):
                return True
        if self._wait_gone(loop.number, life) or self._restore_flags(loop, info):
            return True
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def _bound_loop(self, number: int, descriptor: int, path: str) -> Loop:
        """Read a loop that was bound a moment ago; undo the binding if that fails."""
        try:
            return self._loop(number, descriptor, path)
        except OSError:
            clear(descriptor)
            raise

    def _restore_flags(self, loop: Loop, before: LoopInfo) -> bool:
        """Take back the autoclear that LOOP_CLR_FD left; True if the loop has gone by now."""
        if before.autoclear:
            return False
        try:
            return not self.keep(loop)
        except IdentityMismatch:
            return True

    def _wait_gone(self, number: int, life: str) -> bool:
        """Wait up to 46 ms for a loop with autoclear to lose its last opener."""
        for delay_s in _DETACH_DELAYS_S:
            if self._life(number) != life:
                return True
            time.sleep(delay_s)
        return self._life(number) != life

    def _life(self, number: int) -> str:
        """Return what tells one binding of a number from the next, "" when there is none.

        diskseq (5.15) counts bindings; before that, unbound and bound again in between the looks
        goes unseen, and the detaching counts as failed for now.
        """
        block = self.sys / "block" / f"loop{number}"
        if not (block / "loop" / "backing_file").exists():
            return ""
        try:
            return (block / "diskseq").read_text()
        except OSError:
            return "bound"

    def _has_holders(self, number: int) -> bool:
        """Tell whether another block device stands on this loop."""
        folder = self.sys / "block" / f"loop{number}" / "holders"
        return folder.is_dir() and any(folder.iterdir())

    def open(self, number: int, flags: int) -> int:
        """Open a loop for a change; its node is made where no devtmpfs does.

        See ignite PR 654, podman 22402.
        """
        node, flags = self._node(number), flags | os.O_CLOEXEC
        try:
            return os.open(node, flags)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                make_node(node, DeviceNumber(LOOP_MAJOR, number))
        return os.open(node, flags)

    def _node(self, number: int) -> str:
        return f"{self.dev}/loop{number}"

    def _loop(self, number: int, descriptor: int, path: str = "") -> Loop:
        """Read a bound loop; the very one that was read before while it says the same.

        Kept only of our own: `backing_path` is what their file was called then, for people.
        """
        raw, size_bytes = raw_status(descriptor), os.lseek(descriptor, 0, os.SEEK_END)
        seen = self._seen.get(number)
        if seen is not None and seen[:2] == (raw, size_bytes):
            return seen[2]
        info = LoopInfo.unpack(raw)
        loop = Loop(
            number=number,
            device=DeviceNumber(LOOP_MAJOR, number),
            backing_device=info.device,
            backing_inode=info.inode,
            backing_path=path or self._backing_path(number),
            marker=info.marker,
            size=Sectors(size_bytes // SECTOR_BYTES),
            read_only=info.read_only,
            autoclear=info.autoclear,
            direct_io=info.direct_io,
        )
        if info.marker.startswith(UUID_PREFIX):
            self._seen[number] = (raw, size_bytes, loop)
        return loop

    def _backing_path(self, number: int) -> str:
        raw = _read(f"{self.sys}/block/loop{number}/loop/backing_file")
        return os.fsdecode(raw).rstrip("\n")


class _checked:  # noqa: N801 - used as a function; around every change of a loop
    """Open a loop for a change, make sure it is on the same file; None if it is gone.

    Raises:
        IdentityMismatch: it is on another one.
    """

    __slots__ = ("_descriptor", "_loop", "_loops")

    def __init__(self, loops: LoopDevices, loop: Loop) -> None:
        self._loops, self._loop = loops, loop
        self._descriptor = -1

    def __enter__(self) -> tuple[int, LoopInfo | None]:
        try:
            self._descriptor = self._loops.open(self._loop.number, _LOOKING)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return -1, None
        try:
            return self._descriptor, _same_backing(self._loop, self._descriptor)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


# With paths as texts, as these are asked for at each look at a disk.


def _exists(path: str) -> bool:
    return os.access(path, os.F_OK)


def _read(path: str) -> bytes:
    """Read a file of sysfs: one read gives all of it, at most a page."""
    with ioctl.opened(path, os.O_RDONLY) as descriptor:
        return os.read(descriptor, _PAGE_BYTES)


def make_node(path: str, device: DeviceNumber) -> None:
    """Make a block device node, 0600; raises FileExistsError. Privilege: CAP_MKNOD."""
    os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(device.major, device.minor))


def _same_backing(loop: Loop, descriptor: int) -> LoopInfo | None:
    """Read what a loop is on now; None if unbound, IdentityMismatch if it is another file."""
    try:
        info = get_status(descriptor)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    if (info.device, info.inode) != (loop.backing_device, loop.backing_inode):
        message = (
            f"{loop.path} is on device {info.device}, inode {info.inode} now, not on "
            f"device {loop.backing_device}, inode {loop.backing_inode} ({loop.backing_path})"
        )
        raise IdentityMismatch(message, hint="its number was given to somebody else; look again")
    return info

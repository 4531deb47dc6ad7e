"""What an open descriptor of a loop device can be told and asked: bind, status, flags, clear.

The layouts of struct loop_info64 and struct loop_config, and one function per ioctl on a
descriptor that the caller holds. Which device that is, and whether it may be touched, is the
caller's business (`loopdev`).

Source: include/uapi/linux/loop.h, drivers/block/loop.c.
Raises OSError; may be imported by `loopdev` and tests.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from typing import Final

import attrs

from reconciler.kernel import ioctl
from statemachine.units import SECTOR_BYTES, Sectors

MARKER_BYTES_MAX: Final = ioctl.LO_NAME_SIZE - 1

_INFO = struct.Struct("=5Q4I64s64s32s2Q")
"""struct loop_info64: device, inode, rdevice, offset, size limit; number, encryption type and key
size, flags; file name, crypt name, key, and two numbers nobody uses."""
_CONFIG_HEAD = struct.Struct("=2I")
"""The beginning of struct loop_config: fd, block_size; a loop_info64 and 64 bytes follow."""
_CONFIG_RESERVED: Final = bytes(64)
_SIZE = struct.Struct("=Q")

_EAGAIN_DELAYS_S: Final = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128)
"""Before 5.8, dirty pages make LOOP_SET_STATUS64 fail for a moment (kernel fact 14)."""
_NO_LOOP_CONFIGURE: Final = frozenset({errno.EINVAL, errno.ENOTTY, errno.ENOSYS})


@attrs.frozen(kw_only=True)
class LoopInfo:
    """The parts of struct loop_info64 that byre reads and writes."""

    device: int = 0
    inode: int = 0
    offset_bytes: int = 0
    size_limit_bytes: int = 0
    flags: int = 0
    marker: str = ""

    @classmethod
    def unpack(cls, raw: bytes | bytearray) -> LoopInfo:
        """Read what LOOP_GET_STATUS64 wrote."""
        device, inode, _, offset, limit, _, _, _, flags, name, *_ = _INFO.unpack(raw)
        return cls(
            device=device,
            inode=inode,
            offset_bytes=offset,
            size_limit_bytes=limit,
            flags=flags,
            # The kernel ends it with a NUL (loop_set_status_from_info() in drivers/block/loop.c).
            marker=os.fsdecode(name[:MARKER_BYTES_MAX].split(b"\0", 1)[0]),
        )

    def pack(self) -> bytearray:
        """Build what LOOP_SET_STATUS64 and LOOP_CONFIGURE take; the rest is the kernel's."""
        name = os.fsencode(self.marker)
        assert len(name) <= MARKER_BYTES_MAX, self.marker
        written = (self.offset_bytes, self.size_limit_bytes, 0, 0, 0, self.flags, name)
        return bytearray(_INFO.pack(0, 0, 0, *written, b"", b"", 0, 0))

    @property
    def autoclear(self) -> bool:
        """Whether the kernel detaches the device when its last opener goes."""
        return bool(self.flags & ioctl.LO_FLAGS_AUTOCLEAR)

    @property
    def direct_io(self) -> bool:
        """Whether the device goes past the page cache of its file."""
        return bool(self.flags & ioctl.LO_FLAGS_DIRECT_IO)

    @property
    def read_only(self) -> bool:
        """Whether the device refuses writes."""
        return bool(self.flags & ioctl.LO_FLAGS_READ_ONLY)


def bind(descriptor: int, file: int, info: LoopInfo, *, configure: bool = True) -> None:
    """Bind a loop to an open file, in one step where the kernel has it (5.8).

    Args:
        descriptor: the loop device, open for writing unless it shall be read-only.
        file: the file, open the same way.
        info: flags and marker; offset and size limit 0 mean the whole file.
        configure: False takes the way of older kernels at once.

    Raises:
        OSError: EBUSY if it is bound already.
    """
    if not (configure and _configure(descriptor, file, info)):
        _set_fd(descriptor, file, info)


def get_status(descriptor: int) -> LoopInfo:
    """Read what a loop is on; ENXIO when it is not bound."""
    return LoopInfo.unpack(raw_status(descriptor))


def raw_status(descriptor: int) -> bytes:
    """Return what LOOP_GET_STATUS64 writes; ENXIO when it is not bound."""
    buffer = bytearray(_INFO.size)
    ioctl.call(descriptor, ioctl.LOOP_GET_STATUS64, buffer)
    return bytes(buffer)


def get_size(descriptor: int) -> Sectors:
    """Ask how large the device is by now; a loop has whole sectors only."""
    buffer = bytearray(_SIZE.size)
    ioctl.call(descriptor, ioctl.BLKGETSIZE64, buffer)
    return Sectors(_SIZE.unpack(buffer)[0] // SECTOR_BYTES)


def set_status(descriptor: int, info: LoopInfo) -> None:
    """Write flags and marker; with offset and size limit unchanged no dirty page can refuse.

    The kernel stops the device's queue for it, and so waits for IO in flight.
    """
    ioctl.call(descriptor, ioctl.LOOP_SET_STATUS64, info.pack())


def set_direct_io(descriptor: int, *, on: bool) -> None:
    """Turn direct IO on or off, under whoever uses the device; Linux 4.10.

    The kernel flushes the file first, then stops the queue for a moment.

    Raises:
        OSError: EINVAL where it cannot: the file system has none (tmpfs before 6.6), or lies on a
            disk with larger sectors than the loop device has (__loop_update_dio() in loop.c).
    """
    ioctl.call(descriptor, ioctl.LOOP_SET_DIRECT_IO, int(on))


def clear(descriptor: int) -> bool:
    """Ask the kernel to detach; True if it is gone once this descriptor is closed.

    With another opener LOOP_CLR_FD only sets autoclear, and says yes all the same (kernel
    fact 11). Older kernels detach within this call, newer ones at the close and let nobody open
    the device until then; both show ENXIO from now on.
    """
    try:
        ioctl.call(descriptor, ioctl.LOOP_CLR_FD)
        get_status(descriptor)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return True
        raise
    return False


def give_up(descriptor: int) -> None:
    """Have the kernel detach once the last opener goes; nobody asks whether that was us."""
    try:
        ioctl.call(descriptor, ioctl.LOOP_CLR_FD)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise


def _configure(descriptor: int, file: int, info: LoopInfo) -> bool:
    """Bind in one step; False where the kernel does not know it.

    Block size 0 is the kernel's own choice.
    """
    config = bytearray(_CONFIG_HEAD.pack(file, 0)) + info.pack() + _CONFIG_RESERVED
    try:
        ioctl.call(descriptor, ioctl.LOOP_CONFIGURE, config)
    except OSError as error:
        if error.errno in _NO_LOOP_CONFIGURE:
            return False
        raise
    return True


def _set_fd(descriptor: int, file: int, info: LoopInfo) -> None:
    """Bind in two steps, undone when the second fails; a crash between leaves no marker.

    Read-only comes from how the two files were opened.
    """
    ioctl.call(descriptor, ioctl.LOOP_SET_FD, file)
    try:
        _set_status_patiently(descriptor, info)
    except OSError:
        ioctl.call(descriptor, ioctl.LOOP_CLR_FD)
        raise


def _set_status_patiently(descriptor: int, info: LoopInfo) -> None:
    """Write the status; dirty pages are flushed and waited for, 255 ms at most."""
    for delay_s in _EAGAIN_DELAYS_S:
        try:
            set_status(descriptor, info)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
            os.fsync(descriptor)
            time.sleep(delay_s)
        else:
            return
    set_status(descriptor, info)

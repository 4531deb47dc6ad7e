"""System calls that Python has no name for: ioctls, renameat2, fallocate, sync_file_range.

Every number cites its kernel header. Everything here raises plain OSError; `failing` turns one
into byre's own error at the border of the kernel layer. No policy: no retries, no identity.
May be imported by the other modules of `reconciler.kernel` only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from statemachine.errors import ActionError, from_oserror

# include/uapi/linux/loop.h
LOOP_SET_FD: Final = 0x4C00
LOOP_CLR_FD: Final = 0x4C01
LOOP_SET_STATUS64: Final = 0x4C04
LOOP_GET_STATUS64: Final = 0x4C05
LOOP_SET_CAPACITY: Final = 0x4C07
LOOP_SET_DIRECT_IO: Final = 0x4C08
LOOP_CONFIGURE: Final = 0x4C0A
LOOP_CTL_GET_FREE: Final = 0x4C82
LO_FLAGS_READ_ONLY: Final = 1
LO_FLAGS_AUTOCLEAR: Final = 4
LO_FLAGS_DIRECT_IO: Final = 16
LO_NAME_SIZE: Final = 64

# include/uapi/linux/fs.h: _IOR(0x12, 114, size_t), the size of a block device in bytes
BLKGETSIZE64: Final = (2 << 30) | (struct.calcsize("=Q") << 16) | (0x12 << 8) | 114
# The same: _IOW(0x94, 9, int), _IOW(0x94, 13, struct file_clone_range)
FICLONE: Final = 0x40049409
FICLONERANGE: Final = 0x4020940D
FILE_CLONE_RANGE: Final = struct.Struct("=q3Q")
"""struct file_clone_range: descriptor, offset and length in the source, offset in the target."""

# include/uapi/linux/dm-ioctl.h: _IOWR(0xfd, number, struct dm_ioctl of 312 bytes)
DM_IOCTL_BYTES: Final = 312
_DM_BASE: Final = (3 << 30) | (DM_IOCTL_BYTES << 16) | (0xFD << 8)
DM_LIST_DEVICES: Final = _DM_BASE | 2
DM_DEV_CREATE: Final = _DM_BASE | 3
DM_DEV_REMOVE: Final = _DM_BASE | 4
DM_DEV_RENAME: Final = _DM_BASE | 5
DM_DEV_SUSPEND: Final = _DM_BASE | 6
DM_DEV_STATUS: Final = _DM_BASE | 7
DM_TABLE_LOAD: Final = _DM_BASE | 9
DM_TABLE_STATUS: Final = _DM_BASE | 12
DM_LIST_VERSIONS: Final = _DM_BASE | 13
DM_DEV_ARM_POLL: Final = _DM_BASE | 16
DM_GET_TARGET_VERSION: Final = _DM_BASE | 17

# include/uapi/linux/fs.h and fcntl.h
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_WRITE_AND_WAIT: Final = 1 | 2 | 4  # SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE, _WAIT_AFTER

# include/uapi/linux/falloc.h
_FALLOC_FL_KEEP_SIZE: Final = 1
_FALLOC_FL_PUNCH_HOLE: Final = 2

OUT_OF_MEANS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})
"""Errors that speak of this process or host at this moment, not of the thing that was asked for:
a question that leaves out what it cannot read must not take them for "it is not there"."""

_libc = ctypes.CDLL(None, use_errno=True)


class opened:  # noqa: N801 - used as a function; a generator costs twice what open() does
    """Open a file for the length of a `with` block, closed on exec; raises OSError.

    Args:
        path: a path, or a name in `folder`.
        flags: for open(2).
        mode: of a new file.
        folder: a descriptor of the folder that a name is in.
    """

    __slots__ = ("_descriptor", "_flags", "_folder", "_mode", "_path")

    def __init__(
        self, path: Path | str, flags: int, mode: int = 0o600, *, folder: int | None = None
    ) -> None:
        self._path, self._flags = path, flags
        self._mode, self._folder = mode, folder

    def __enter__(self) -> int:
        flags = self._flags | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, self._mode, dir_fd=self._folder)
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class failing:  # noqa: N801 - used as a function; around every call of the port
    """Turn an OSError of the block into byre's `ActionError`, with the action in its text.

    Args:
        doing: the action and its object: "attach a loop device to /x".
        hint: the next step for a person.
        then: is called first, when it failed.
    """

    __slots__ = ("_doing", "_hint", "_then")

    def __init__(
        self, doing: str, *, hint: str = "", then: Callable[[], None] | None = None
    ) -> None:
        self._doing, self._hint, self._then = doing, hint, then

    def __enter__(self) -> None:
        """Nothing is needed at the beginning."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            if self._then is not None:
                self._then()
            raise from_oserror(error, self._doing, hint=self._hint) from error


def refuse(number: int, doing: str, *, hint: str = "") -> ActionError:
    """Build the `ActionError` of an errno that byre itself found, without a system call."""
    return from_oserror(OSError(number, os.strerror(number)), doing, hint=hint)


def call(descriptor: int, request: int, argument: int | bytearray = 0) -> int:
    """Make one ioctl; a bytearray is read and written in place.

    The GIL is not held meanwhile. Raises OSError; EINTR is tried again by nobody: the caller's
    caller sorts it as transient.
    """
    if isinstance(argument, bytearray):
        return int(fcntl.ioctl(descriptor, request, argument, True))  # noqa: FBT003 - mutate_flag
    return int(fcntl.ioctl(descriptor, request, argument))


def write_out(descriptor: int, offset: int, length: int) -> None:
    """Write the dirty pages of a part of an open file or device, and wait for that; raises OSError.

    No promise of a power cut survived: neither metadata nor the disk's own cache is flushed.
    """
    result = _libc.sync_file_range(
        ctypes.c_int(descriptor),
        ctypes.c_int64(offset),
        ctypes.c_int64(length),
        ctypes.c_uint(_WRITE_AND_WAIT),
    )
    if result != 0:
        number = ctypes.get_errno() or errno.EIO
        raise OSError(number, os.strerror(number))


def exchange(left: str, right: str, *, folder: int) -> None:
    """Swap two names of one open folder atomically; both must exist.

    Raises OSError, EINVAL where the file system cannot (9p, NFS). Linux 3.15.
    """
    _rename(folder, left, folder, right, _RENAME_EXCHANGE)


def rename_new(folder: int, name: str, to: int, new: str) -> None:
    """Give a file a new name, in another open folder too, atomically; the name must be free.

    Raises OSError, EEXIST if it is taken, EXDEV on another file system. Linux 3.15.
    """
    _rename(folder, name, to, new, _RENAME_NOREPLACE)


def _rename(folder: int, name: str, to: int, new: str, flags: int) -> None:
    result = _libc.renameat2(
        ctypes.c_int(folder),
        ctypes.c_char_p(os.fsencode(name)),
        ctypes.c_int(to),
        ctypes.c_char_p(os.fsencode(new)),
        ctypes.c_uint(flags),
    )
    if result != 0:
        number = ctypes.get_errno() or errno.EIO
        raise OSError(number, os.strerror(number), name, None, new)


def punch_hole(descriptor: int, start: int, length: int) -> None:
    """Give back the blocks of a part of a file, which then reads as zeros.

    Raises OSError, EOPNOTSUPP where the file system has no holes. Linux 2.6.38.
    """
    result = _libc.fallocate64(
        ctypes.c_int(descriptor),
        ctypes.c_int(_FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE),
        ctypes.c_int64(start),
        ctypes.c_int64(length),
    )
    if result != 0:
        number = ctypes.get_errno() or errno.EIO
        raise OSError(number, os.strerror(number))

"""Base images on a real Linux: their digest, their mode, fs-verity.

fs-verity has the kernel check each block that is read against a tree of hashes, and refuse to open
the file for writing for ever (Documentation/filesystems/fsverity.rst). The file system must have
it: ext4 with the feature `verity`, btrfs, f2fs.

Raises OSError and IdentityMismatch in the functions, byre's own errors in the class.
May be imported by `linux`, `content` and tests.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
from pathlib import Path
from typing import Final

from reconciler.kernel import extents, ioctl, safepath
from reconciler.kernel.files import mismatch, same_inode
from reconciler.kernel.imageport import Images, Tell
from reconciler.kernel.ioctl import failing
from statemachine.errors import IdentityMismatch
from statemachine.fileidentity import FileIdentity

# include/uapi/linux/fsverity.h: _IOW('f', 133, struct fsverity_enable_arg of 128 bytes),
# _IOWR('f', 134, struct fsverity_digest of 4 bytes, and the digest after it)
FS_IOC_ENABLE_VERITY: Final = 0x40806685
FS_IOC_MEASURE_VERITY: Final = 0xC0046686
_ENABLE: Final = struct.Struct("=IIIIQIIQ88x")
"""struct fsverity_enable_arg: version, algorithm, block size, sizes and addresses of salt and
signature, and what is reserved."""
_HEAD: Final = struct.Struct("=HH")
"""struct fsverity_digest: algorithm and size; as an argument, the size that there is room for."""
_VERSION: Final = 1
_SHA256: Final = 1
_BLOCK_BYTES: Final = 4096
_DIGEST_BYTES: Final = 64
_IS_OFF: Final = frozenset({errno.ENODATA, errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL})
_WRITERS: Final = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_ZEROS: Final = bytes(extents.PIECE_BYTES)


class LinuxImages(Images):
    """A part of `linux.LinuxKernel`."""

    def digest(self, path: Path, expected: FileIdentity, tell: Tell) -> str:
        """Read a whole file and return its SHA-256 in hex."""
        with (
            failing(f"read {path}"),
            safepath.regular(path, os.O_RDONLY, follow=True) as descriptor,
        ):
            _check(path, descriptor, expected)
            found = sha256_of(descriptor, tell)
            _check(path, descriptor, expected)
            return found

    def file_mode(self, path: Path) -> int:
        """Return the permission bits of a file."""
        with failing(f"look at {path}"):
            return stat.S_IMODE(path.stat().st_mode)

    def make_read_only(self, path: Path, expected: FileIdentity) -> bool:
        """Take the right to write from everybody in a file's mode. False if nobody had it."""
        with (
            failing(f"make {path} read-only"),
            safepath.regular(path, os.O_RDONLY, follow=True) as descriptor,
        ):
            mode = stat.S_IMODE(_check(path, descriptor, expected).st_mode)
            if not mode & _WRITERS:
                return False
            os.fchmod(descriptor, mode & ~_WRITERS)
            os.fsync(descriptor)
            return True

    def verity(self, path: Path) -> str:
        """Return what fs-verity measured of a file; "" where it is off."""
        with (
            failing(f"ask for fs-verity of {path}"),
            safepath.regular(path, os.O_RDONLY, follow=True) as descriptor,
        ):
            return _measured(descriptor)

    def enable_verity(self, path: Path, expected: FileIdentity) -> bool:
        """Turn fs-verity on. False if it was on."""
        with (
            failing(f"turn on fs-verity for {path}"),
            safepath.regular(path, os.O_RDONLY, follow=True) as descriptor,
        ):
            _check(path, descriptor, expected)
            wanted = _ENABLE.pack(_VERSION, _SHA256, _BLOCK_BYTES, 0, 0, 0, 0, 0)
            try:
                ioctl.call(descriptor, FS_IOC_ENABLE_VERITY, bytearray(wanted))
            except FileExistsError:
                return False
            return True


def sha256_of(descriptor: int, tell: Tell) -> str:
    """Return the SHA-256 of an open file in hex; its holes cost no reading."""
    size = os.fstat(descriptor).st_size
    found, at = hashlib.sha256(), 0

    def zeros(up_to: int) -> int:
        for start, end in extents.pieces(at, up_to):
            found.update(memoryview(_ZEROS)[: end - start])
            tell(end, size)
        return up_to

    for begin, stop in extents.data_ranges(descriptor, size):
        at = zeros(begin)
        for start, end in extents.pieces(begin, stop):
            found.update(extents.read_all(descriptor, start, end))
            tell(end, size)
        at = stop
    zeros(size)
    return found.hexdigest()


def _measured(descriptor: int) -> str:
    room = bytearray(_HEAD.pack(0, _DIGEST_BYTES) + bytes(_DIGEST_BYTES))
    try:
        ioctl.call(descriptor, FS_IOC_MEASURE_VERITY, room)
    except OSError as error:
        if error.errno in _IS_OFF:
            return ""
        raise
    algorithm, size = _HEAD.unpack_from(room)
    name = "sha256" if algorithm == _SHA256 else f"algorithm-{algorithm}"
    return f"{name}:{room[_HEAD.size : _HEAD.size + size].hex()}"


def _check(path: Path, descriptor: int, expected: FileIdentity) -> os.stat_result:
    found = os.fstat(descriptor)
    if not same_inode(found, expected):
        raise mismatch(path, found, expected)
    if (found.st_size, found.st_mtime_ns) != (expected.size.count, expected.mtime_ns):
        msg = f"{path} was written to: {found.st_size} bytes, mtime {found.st_mtime_ns} ns now"
        raise IdentityMismatch(msg, hint=f"it was {expected}")
    return found

"""Files and folders: make a sparse one, remove one by identity, read a CoW's header, look.

Everything that creates or removes a name is durable (the file and its folder are fsynced) before
it returns. Never overwrites; never follows a symlink at the end of a path but where `identify`
is told to. Copies are made in `clone`, symlinks in `links`.

Raises OSError, and IdentityMismatch where a file is not the one that was meant.
May be imported by the kernel layer and tests.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path
from typing import Final

from reconciler.kernel import ioctl
from reconciler.kernel.port import CowHeader, FreeSpace
from statemachine.errors import IdentityMismatch
from statemachine.observed import FileIdentity
from statemachine.units import CHUNK_SECTORS, LARGEST_BYTES, SECTOR_BYTES, Bytes

_HEADER = struct.Struct("<4I")
"""struct disk_header of drivers/md/dm-snap-persistent.c: magic, valid, version and chunk size in
sectors, little endian."""
_MAGIC: Final = 0x70416E53  # "SnAp"
_VERSION: Final = 1
_RMDIR_TRIES_MAX: Final = 3
_STAT_BLOCK_BYTES: Final = 512  # st_blocks, whatever the file system's own block is


def identify(path: Path, *, follow: bool, sys: Path) -> FileIdentity | None:
    """Return which file is at a path; None if there is none.

    Args:
        path: an absolute path.
        follow: whether a symlink at its end is followed.
        sys: /sys, for the size of a block device, whose st_size is 0.
    """
    try:
        found = path.stat() if follow else path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    size = _device_bytes(found.st_rdev, sys) if stat.S_ISBLK(found.st_mode) else found.st_size
    return FileIdentity(
        device=found.st_dev,
        inode=found.st_ino,
        size=Bytes(size),
        mtime_ns=found.st_mtime_ns,
        kind=_kind(found.st_mode),
    )


def same_inode(found: os.stat_result, expected: FileIdentity) -> bool:
    """Tell whether a stat is of the file that was meant, whatever was written to it."""
    return (found.st_dev, found.st_ino) == (expected.device, expected.inode)


def mismatch(path: Path, found: os.stat_result, expected: FileIdentity) -> IdentityMismatch:
    """Build the error that names both sides."""
    return IdentityMismatch(
        f"{path} is device {found.st_dev}, inode {found.st_ino} now, not "
        f"device {expected.device}, inode {expected.inode}",
        hint="somebody replaced the file; look at it before going on",
    )


def readable(path: Path) -> bool:
    """Tell whether this process can open the file for reading; raises OSError if it can't now."""
    try:
        with ioctl.opened(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY):
            return True
    except OSError as error:
        if error.errno in ioctl.OUT_OF_MEANS:
            raise
        return False


def list_folder(path: Path) -> tuple[str, ...]:
    """Return the sorted names in a folder; empty when it does not exist."""
    try:
        return tuple(sorted(os.listdir(path)))  # noqa: PTH208 - names are wanted, not paths
    except FileNotFoundError:
        return ()


def cow_header(path: Path) -> CowHeader:
    """Read the first 16 bytes of a CoW file and say what they are."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return CowHeader.FOREIGN
        with ioctl.opened(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as descriptor:
            return parse_header(os.pread(descriptor, _HEADER.size, 0))
    except (FileNotFoundError, NotADirectoryError):
        return CowHeader.MISSING


def parse_header(raw: bytes) -> CowHeader:
    """Say what the first 16 bytes of an exception store are; fewer are a file that short."""
    if not any(raw):
        return CowHeader.EMPTY
    if len(raw) < _HEADER.size:
        return CowHeader.FOREIGN
    magic, valid, version, chunk = _HEADER.unpack(raw)
    if (magic, version, chunk) != (_MAGIC, _VERSION, CHUNK_SECTORS) or valid not in (0, 1):
        return CowHeader.FOREIGN
    return CowHeader.VALID if valid else CowHeader.INVALID


def allocated(path: Path) -> Bytes:
    """Return how many bytes a file occupies; 0 when it is missing."""
    try:
        return Bytes(path.lstat().st_blocks * _STAT_BLOCK_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return Bytes(0)


def free_space(path: Path) -> FreeSpace:
    """Return the room on the file system of the nearest existing parent of a path.

    `available` leaves out the blocks kept for root: they are there for the host to live on.
    """
    while True:
        try:
            found = os.statvfs(path)
        except (FileNotFoundError, NotADirectoryError):
            path = path.parent
        else:
            block = found.f_frsize
            return FreeSpace(
                available=Bytes(min(found.f_bavail * block, LARGEST_BYTES)),
                total=Bytes(min(found.f_blocks * block, LARGEST_BYTES)),
            )


def create_sparse(path: Path, size: Bytes, *, sys: Path) -> FileIdentity:
    """Make a new sparse file of this size, 0600, durable with its folder entry.

    Raises:
        OSError: EEXIST if there is anything at the path; ENOSPC, EFBIG and what else the file
            system says, with the file taken away again.
    """
    make_parents(path)
    with ioctl.opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW) as descriptor:
        try:
            os.ftruncate(descriptor, size.count)
            os.fsync(descriptor)
        except OSError:
            path.unlink()
            raise
    sync_folder(path.parent)
    made = identify(path, follow=False, sys=sys)
    assert made is not None, path
    return made


def remove_file(path: Path, expected: FileIdentity) -> bool:
    """Unlink a file if it is still the expected one; durable. False if it is gone.

    Between the check and the unlink another file could be put there; nobody but byre has
    business in these folders (0700), so the kernel's lack of an unlink by inode is accepted.

    Raises:
        IdentityMismatch: another file is in its place.
    """
    try:
        found = path.lstat()
        if not same_inode(found, expected):
            raise mismatch(path, found, expected)
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    sync_folder(path.parent)
    return True


def make_folder(path: Path) -> bool:
    """Make one folder, 0755 whatever the umask says. False if it exists."""
    try:
        path.mkdir()
    except FileExistsError:
        if path.is_dir():
            return False
        raise
    path.chmod(0o755)
    return True


def remove_folder(path: Path) -> bool:
    """Remove one folder if it is empty. False if it is not, or is gone."""
    for _ in range(_RMDIR_TRIES_MAX):
        try:
            path.rmdir()
        except FileNotFoundError:
            return False
        except OSError as error:
            if path.is_dir() and not path.is_symlink() and any(path.iterdir()):
                return False
            # Not empty a moment ago, empty now: another disk's link went in between. Again.
            if error.errno != errno.ENOTEMPTY:
                raise
        else:
            return True
    return False


def make_parents(path: Path) -> None:
    """Make the missing parent folders of a path, 0700, each durable in its own parent."""
    missing = [parent for parent in path.parents if not parent.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    with ioctl.opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


def _device_bytes(number: int, sys: Path) -> int:
    size = sys / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}" / "size"
    try:
        return int(size.read_text()) * SECTOR_BYTES
    except FileNotFoundError:  # a node without its device
        return 0


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "device" if stat.S_ISBLK(mode) else "other"

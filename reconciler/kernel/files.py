"""Files and folders: make a sparse one, remove one by identity, read a CoW's header, look.

Everything that creates or removes a name is durable (the file and its folder are fsynced) before
it returns. Never overwrites; never follows a symlink at the end of a path but where `identify`
is told to. What is byre's own is made and removed in a folder that was walked to (`safepath`) and
that holds it: nobody else can swap it. Copies are made in `clone`, symlinks in `links`.

Raises OSError, IdentityMismatch where a file is not the one that was meant, and UnsafePath.
May be imported by the kernel layer and tests.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
from pathlib import Path
from typing import Final

from reconciler.kernel import ioctl, newfile, safepath
from reconciler.kernel.port import CowHeader, FreeSpace
from reconciler.kernel.safepath import Place
from reconciler.store import layout
from reconciler.store.layout import StoreError
from statemachine.errors import IdentityMismatch, UnsafePath
from statemachine.fileidentity import FileIdentity
from statemachine.units import LARGEST_BYTES, SECTOR_BYTES, Bytes

_FOLDER_MODE: Final = 0o755
_LISTING: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_RMDIR_TRIES_MAX: Final = 3


def identify(path: Path, *, follow: bool, sys: Path) -> FileIdentity | None:
    """Return which file is at a path; None if there is none.

    Args:
        path: an absolute path.
        follow: whether a symlink at its end is followed.
        sys: /sys, for the size of a block device, whose st_size is 0.
    """
    try:
        found = os.stat(path, follow_symlinks=follow)  # noqa: PTH116 - asked at each look
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _identity(found, sys)


def _identity(found: os.stat_result, sys: Path) -> FileIdentity:
    size = _device_bytes(found.st_rdev, sys) if stat.S_ISBLK(found.st_mode) else found.st_size
    return FileIdentity(
        device=found.st_dev,
        inode=found.st_ino,
        size=Bytes(size),
        mtime_ns=found.st_mtime_ns,
        kind=_kind(found.st_mode),
    )


def files_in(folder: Path, *, sys: Path) -> dict[str, FileIdentity]:
    """Return what is in a folder, by name; nothing when it does not exist."""
    found = {name: identify(folder / name, follow=False, sys=sys) for name in list_folder(folder)}
    return {name: file for name, file in found.items() if file is not None}


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
        with safepath.regular(path, os.O_RDONLY, follow=True):
            return True
    except OSError as error:
        if error.errno in ioctl.OUT_OF_MEANS:
            raise
        return False


def is_open(path: Path) -> bool:
    """Tell whether anybody else has the file open; True when that cannot be told.

    A write lease is given only on a file that nobody else has open (fcntl(2), F_SETLEASE). It is
    given back at once. Whoever opens the file in between waits for that moment, and the signal
    that then comes is one that is ignored by default; the default of leases, SIGIO, would end us.
    """
    try:
        with safepath.regular(path, os.O_RDWR, follow=False) as descriptor:
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        if error.errno in ioctl.OUT_OF_MEANS:
            raise
        return True
    return False


def list_folder(path: Path) -> tuple[str, ...]:
    """Return the sorted names in a folder; empty when it does not exist."""
    try:
        return tuple(sorted(os.listdir(path)))  # noqa: PTH208 - names are wanted, not paths
    except FileNotFoundError:
        return ()


def cow_header(path: Path, chunk: Bytes) -> CowHeader:
    """Read the first 16 bytes of a CoW file with chunks of this size and say what they are."""
    try:
        with safepath.regular(path, os.O_RDONLY, follow=False) as descriptor:
            raw = os.pread(descriptor, layout.HEADER_BYTES, 0)
    except safepath.Irregular:
        return CowHeader.FOREIGN
    except (FileNotFoundError, NotADirectoryError):
        return CowHeader.MISSING
    return parse_header(raw, chunk)


def parse_header(raw: bytes, chunk: Bytes) -> CowHeader:
    """Say what the first 16 bytes of an exception store are; fewer are a file that short."""
    try:
        header = layout.parse_header(raw)
    except StoreError:
        return CowHeader.FOREIGN
    if header is None:
        return CowHeader.EMPTY
    if header.chunk.to_bytes() != chunk:
        return CowHeader.FOREIGN
    return CowHeader.VALID if header.valid else CowHeader.INVALID


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
        UnsafePath: another user could replace it there.
        OSError: EEXIST if there is anything at the path; ENOSPC, EFBIG and what else the file
            system says, with the file taken away again.
    """
    try:
        made = _create_sparse(path, size)
    except FileNotFoundError:  # of the first disk; to ask for it each time takes longer
        make_parents(path)
        made = _create_sparse(path, size)
    return _identity(made, sys)


def _create_sparse(path: Path, size: Bytes) -> os.stat_result:
    with safepath.place(path, own=True) as (folder, name):
        with ioctl.opened(name, _NEW, folder=folder) as descriptor:
            try:
                os.ftruncate(descriptor, size.count)
                os.fsync(descriptor)
                made = os.fstat(descriptor)
            except OSError:
                os.unlink(name, dir_fd=folder)
                raise
        newfile.sync_folder(folder)
    return made


def grow_file(path: Path, expected: FileIdentity, size: Bytes) -> bool:
    """Make a file this large, durable; False if it is as large already.

    Raises:
        IdentityMismatch: another file is in its place.
        OSError: ENOENT; ENOSPC, EFBIG and what else the file system says.
    """
    with safepath.regular(path, os.O_RDWR, follow=False) as descriptor:
        found = os.fstat(descriptor)
        if not same_inode(found, expected):
            raise mismatch(path, found, expected)
        if found.st_size >= size.count:
            return False
        os.ftruncate(descriptor, size.count)
        os.fsync(descriptor)
    return True


def sync_file(path: Path, expected: FileIdentity) -> None:
    """Make what was written to a file, by whomever, durable.

    Raises:
        IdentityMismatch: another file is in its place.
        OSError: ENOENT; EIO when it could not be written, with the data lost (fsync(2)).
    """
    with safepath.regular(path, os.O_RDWR, follow=False) as descriptor:
        found = os.fstat(descriptor)
        if not same_inode(found, expected):
            raise mismatch(path, found, expected)
        os.fsync(descriptor)


def remove_file(path: Path, expected: FileIdentity) -> bool:
    """Unlink a file if it is still the expected one; durable. False if it is gone.

    The kernel has no unlink by inode. Between the check and the unlink only root and we can put
    another file there, as the folder holds what is ours.

    Raises:
        IdentityMismatch: another file is in its place.
        UnsafePath: another user could replace it there.
    """
    try:
        with safepath.place(path, own=True) as (folder, name):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not same_inode(found, expected):
                raise mismatch(path, found, expected)
            os.unlink(name, dir_fd=folder)
            newfile.sync_folder(folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def move_file(path: Path, target: Path, expected: FileIdentity) -> bool:
    """Give a file another name, durable. False if it has it already.

    Raises:
        IdentityMismatch: another file is at the old path.
        UnsafePath: another user could put one there, or at the new path.
        OSError: ENOENT; EEXIST, the new path is taken; EXDEV, it is on another file system.
    """
    make_parents(target)
    with safepath.place(target, own=True) as (to, new):
        with contextlib.suppress(FileNotFoundError):
            if same_inode(os.stat(new, dir_fd=to, follow_symlinks=False), expected):
                return False
        with safepath.place(path, own=True) as (folder, name):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not same_inode(found, expected):
                raise mismatch(path, found, expected)
            ioctl.rename_new(folder, name, to, new)
            newfile.sync_folder(to)
            newfile.sync_folder(folder)
    return True


def make_folder(path: Path) -> bool:
    """Make one folder, 0755 whatever the umask says. False if it exists.

    Raises:
        UnsafePath: the way to it is not to be passed, or somebody swapped it while it was made.
        OSError: EEXIST if something else is there; ENOENT without a parent.
    """
    with safepath.place(path) as place:
        try:
            os.mkdir(place.name, _FOLDER_MODE, dir_fd=place.folder)
        except FileExistsError:
            with contextlib.suppress(OSError), safepath.folder(path):
                return False
            raise
        _open_to_all(path, place)
    return True


def _open_to_all(path: Path, place: Place) -> None:
    """Give a new folder the mode that the umask may have narrowed."""
    with ioctl.opened(place.name, _LISTING, folder=place.folder) as descriptor:
        found = os.fstat(descriptor)
        if stat.S_IMODE(found.st_mode) == _FOLDER_MODE:
            return
        if found.st_uid != os.geteuid() or not _is_empty(descriptor):
            raise UnsafePath(f"{path} was replaced while it was made", hint="see who writes there")
        os.fchmod(descriptor, _FOLDER_MODE)


def remove_folder(path: Path) -> bool:
    """Remove one folder if it is empty, durable. False if it is not, or is gone.

    Raises:
        UnsafePath: the way to it is not to be passed.
        OSError: ENOTDIR if it is no folder.
    """
    try:
        with safepath.place(path) as place:
            return _remove_folder(place)
    except FileNotFoundError:
        return False


def _remove_folder(place: Place) -> bool:
    for _ in range(_RMDIR_TRIES_MAX):
        try:
            os.rmdir(place.name, dir_fd=place.folder)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            with ioctl.opened(place.name, _LISTING, folder=place.folder) as descriptor:
                if not _is_empty(descriptor):
                    return False
            # Not empty a moment ago, empty now: another disk's link went in between. Again.
        else:
            newfile.sync_folder(place.folder)
            return True
    return False


def _is_empty(folder: int) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def make_parents(path: Path) -> None:
    """Make the missing parent folders of a path, 0700, each durable in its own parent.

    Raises:
        UnsafePath: another user could replace one of them.
    """
    missing = [parent for parent in path.parents if not parent.exists()]
    for made in reversed(missing):
        with safepath.place(made, own=True) as (folder, name):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=folder)
            newfile.sync_folder(folder)


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

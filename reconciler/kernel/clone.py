"""A private copy of a base image: a reflink where the file system has it, else a sparse copy.

The copy is made as a file without a name (O_TMPFILE) and given its name when it is whole and
durable, so a crash leaves nothing behind; where the file system has no such files, it is made
under a temporary name that the next attempt clears away. Which method was used is returned, as
falling back is never silent (arcbox PR 665).

Raises OSError, IdentityMismatch and UnsafePath; may be imported by `linux` and tests.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from reconciler.kernel import ioctl, safepath
from reconciler.kernel.files import make_parents, mismatch, same_inode, sync_folder
from reconciler.kernel.port import CloneMethod
from reconciler.kernel.safepath import Place
from statemachine.observed import FileIdentity
from statemachine.units import Bytes

_PIECE_BYTES: Final = 1 << 20
_ZEROS: Final = bytes(_PIECE_BYTES)
_NO_REFLINK: Final = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}
)
_NO_TMPFILE: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS})
_NO_HOLES: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


def clone_file(
    source: Path, target: Path, size: Bytes, *, expected: FileIdentity | None = None
) -> CloneMethod:
    """Make `target` a private copy of `source`, 0600 and durable, `size` long.

    Args:
        source: the base, a regular file; a symlink at its end is followed.
        target: must not exist; missing parents are made, 0700.
        size: of the copy; zeros follow where the base ends.
        expected: which file the source must be; None for whichever is there.

    Raises:
        IdentityMismatch: the source is another file.
        UnsafePath: another user could replace the target.
        OSError: EEXIST if there is a target; EFBIG if the source is longer than `size`.
    """
    make_parents(target)
    with safepath.place(target, own=True) as place:
        if _is_there(place):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        with safepath.regular(source, os.O_RDONLY, follow=True) as base:
            found = os.fstat(base)
            if expected is not None and not same_inode(found, expected):
                raise mismatch(source, found, expected)
            method = _clone(base, found.st_size, place, size)
        sync_folder(place.folder)
    return method


def _clone(base: int, length: int, place: Place, size: Bytes) -> CloneMethod:
    if length > size.count:
        raise OSError(errno.EFBIG, f"it has {length} bytes, more than {size.count}")
    with _nameless(place) as copy:
        method = _copy(base, copy, length)
        os.ftruncate(copy, size.count)
        os.fsync(copy)
    return method


def _is_there(place: Place) -> bool:
    try:
        os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def _nameless(place: Place) -> Iterator[int]:
    """Open a new file in the target's folder; it gets its name when the block ends well."""
    try:
        flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        descriptor = os.open(".", flags, 0o600, dir_fd=place.folder)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        with _hidden(place) as descriptor:
            yield descriptor
        return
    try:
        yield descriptor
        # Python uses linkat() with AT_SYMLINK_FOLLOW, which this needs (open(2), O_TMPFILE), when
        # a folder's descriptor is given. EEXIST if somebody has the name.
        _link(f"/proc/self/fd/{descriptor}", place, follow=True)
    finally:
        os.close(descriptor)


def _link(source: str, place: Place, *, follow: bool) -> None:
    os.link(
        source,
        place.name,
        src_dir_fd=place.folder,
        dst_dir_fd=place.folder,
        follow_symlinks=follow,
    )


@contextlib.contextmanager
def _hidden(place: Place) -> Iterator[int]:
    """Do as `_nameless` does under a temporary name; what a crash left there is cleared away."""
    folder, hidden = place.folder, f".{place.name}.byre-partial"
    _unlink(folder, hidden)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with ioctl.opened(hidden, flags, folder=folder) as descriptor:
            yield descriptor
        _link(hidden, place, follow=False)
    finally:
        _unlink(folder, hidden)


def _unlink(folder: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _copy(base: int, copy: int, length: int) -> CloneMethod:
    try:
        ioctl.call(copy, ioctl.FICLONE, base)
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
    else:
        return CloneMethod.REFLINK
    for start, end in _data_ranges(base, length):
        _copy_range(base, copy, start, end)
    return CloneMethod.SPARSE_COPY


def _data_ranges(base: int, length: int) -> Iterator[tuple[int, int]]:
    """Walk the parts of a file that are not holes; the whole of it where nobody can say."""
    at = 0
    while at < length:
        try:
            start = os.lseek(base, at, os.SEEK_DATA)
            at = os.lseek(base, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            if error.errno not in _NO_HOLES:  # a block device has none
                raise
            start, at = at, length
        yield start, min(at, length)


def _copy_range(base: int, copy: int, start: int, end: int) -> None:
    """Copy piece by piece; a piece of zeros becomes a hole."""
    at = start
    while at < end:
        piece = os.pread(base, min(_PIECE_BYTES, end - at), at)
        if not piece:
            raise OSError(errno.EIO, "the source ended early: somebody is shortening it")
        if piece != _ZEROS[: len(piece)]:
            _write_all(copy, piece, at)
        at += len(piece)


def _write_all(copy: int, piece: bytes, at: int) -> None:
    view = memoryview(piece)
    while view:
        written = os.pwrite(copy, view, at)
        view, at = view[written:], at + written

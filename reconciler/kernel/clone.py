"""A private copy of a base image: a reflink where the file system has it, else a sparse copy.

The copy is made as a file without a name (O_TMPFILE) and given its name when it is whole and
durable, so a crash leaves nothing behind; where the file system has no such files, it is made
under a temporary name that the next attempt clears away. Which method was used is returned, as
falling back is never silent (arcbox PR 665).

Raises OSError; may be imported by `linux` and tests.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from reconciler.kernel import ioctl
from reconciler.kernel.files import make_parents, sync_folder
from reconciler.kernel.port import CloneMethod
from statemachine.units import Bytes

_PIECE_BYTES: Final = 1 << 20
_ZEROS: Final = bytes(_PIECE_BYTES)
_NO_REFLINK: Final = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}
)
_NO_TMPFILE: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS})
_NO_HOLES: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


def clone_file(source: Path, target: Path, size: Bytes) -> CloneMethod:
    """Make `target` a private copy of `source`, 0600 and durable, `size` long.

    Args:
        source: the base; a symlink at its end is followed.
        target: must not exist; missing parents are made, 0700.
        size: of the copy; zeros follow where the base ends.

    Raises:
        OSError: EEXIST if there is a target; EFBIG if the source is longer than `size`.
    """
    make_parents(target)
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    with ioctl.opened(source, os.O_RDONLY) as base, _nameless(target) as copy:
        length = os.lseek(base, 0, os.SEEK_END)
        if length > size.count:
            raise OSError(errno.EFBIG, f"it has {length} bytes, more than {size.count}")
        method = _copy(base, copy, length)
        os.ftruncate(copy, size.count)
        os.fsync(copy)
    sync_folder(target.parent)
    return method


@contextlib.contextmanager
def _nameless(target: Path) -> Iterator[int]:
    """Open a new file next to the target; it gets its name when the block ends well."""
    try:
        descriptor = os.open(target.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        with _hidden(target) as descriptor:
            yield descriptor
        return
    try:
        yield descriptor
        _name(descriptor, target)
    finally:
        os.close(descriptor)


def _name(descriptor: int, target: Path) -> None:
    """Give a nameless file its name; EEXIST if somebody has it (open(2), O_TMPFILE).

    A folder's descriptor makes Python use linkat() with AT_SYMLINK_FOLLOW, which this needs.
    """
    with ioctl.opened(target.parent, os.O_RDONLY | os.O_DIRECTORY) as folder:
        os.link(
            f"/proc/self/fd/{descriptor}",
            target.name,
            src_dir_fd=folder,
            dst_dir_fd=folder,
            follow_symlinks=True,
        )


@contextlib.contextmanager
def _hidden(target: Path) -> Iterator[int]:
    """Do as `_nameless` does under a temporary name; what a crash left there is cleared away."""
    hidden = target.with_name(f".{target.name}.byre-partial")
    hidden.unlink(missing_ok=True)
    try:
        with ioctl.opened(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL) as descriptor:
            yield descriptor
        os.link(hidden, target)
    finally:
        hidden.unlink(missing_ok=True)


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

"""The parts of a file that are not holes, and writing so that zeros become holes.

Works on open files, at offsets: no file's position means anything. Raises OSError.
May be imported by the kernel layer and by what reads or writes whole files.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Final

from reconciler.kernel import ioctl

PIECE_BYTES: Final = 1 << 20
"""How much is read or written at once."""
BLOCK_BYTES: Final = 4096
"""The grain of holes: the block of nearly every file system."""
_ZEROS: Final = bytes(PIECE_BYTES)
_BLOCK: Final = bytes(BLOCK_BYTES)
_NO_REFLINK: Final = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}
)
_NO_HOLES: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


def data_ranges(descriptor: int, length: int) -> Iterator[tuple[int, int]]:
    """Walk the parts of a file that are not holes; the whole of it where nobody can say."""
    at = 0
    while at < length:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
            at = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            if error.errno not in _NO_HOLES:  # a block device has none
                raise
            start, at = at, length
        if start < length:
            yield start, min(at, length)


def pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a range where a multiple of `PIECE_BYTES` is."""
    while start < end:
        cut = min(end, (start // PIECE_BYTES + 1) * PIECE_BYTES)
        yield start, cut
        start = cut


def reflink(source: int, target: int) -> bool:
    """Make an empty file share all blocks of another; False where the file system cannot."""
    try:
        ioctl.call(target, ioctl.FICLONE, source)
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
        return False
    return True


def share(source: int, target: int, start: int, at: int, length: int) -> bool:
    """Make a part of a file share blocks with a part of another; False where that cannot be.

    Args:
        source: a descriptor.
        target: another, of a file that is long enough.
        start: where the part begins in the source; a multiple of the file system's block.
        at: where it goes in the target; the same.
        length: the same, but at the end of the source.
    """
    given = bytearray(ioctl.FILE_CLONE_RANGE.pack(source, start, length, at))
    try:
        ioctl.call(target, ioctl.FICLONERANGE, given)
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
        return False
    return True


def copy_data(source: int, target: int, length: int) -> None:
    """Copy what is not a hole, for as long as the source is; zeros become holes.

    Raises:
        OSError: EIO if the source is shorter than it was said to be.
    """
    for begin, end in data_ranges(source, length):
        for start, cut in pieces(begin, end):
            write_sparse(target, read_all(source, start, cut), start)


def read_all(descriptor: int, start: int, end: int) -> bytes:
    """Read exactly a range; EIO if the file ends before it does."""
    piece = os.pread(descriptor, end - start, start)
    if len(piece) == end - start:
        return piece
    parts = [piece]
    while (at := start + sum(map(len, parts))) < end:
        more = os.pread(descriptor, end - at, at)
        if not more:
            raise OSError(errno.EIO, "the file ended early: somebody is shortening it")
        parts.append(more)
    return b"".join(parts)


def write_sparse(descriptor: int, piece: bytes, at: int) -> None:
    """Write a piece where a hole is, and leave out its blocks of zeros."""
    for start, end, is_hole in _block_runs(piece):
        if not is_hole:
            write_all(descriptor, memoryview(piece)[start:end], at + start)


def overwrite(
    descriptor: int,
    piece: bytes,
    at: int,
    *,
    shared: Callable[[int, int], bool] = lambda _start, _end: False,
) -> None:
    """Write a piece over what is there; its blocks of zeros become holes where that can be.

    Args:
        descriptor: open for writing.
        piece: what to write.
        at: where.
        shared: is asked to bring a part of it there, (start, end) in the piece, without writing.
    """
    for start, end, is_hole in _block_runs(piece):
        if is_hole and punch(descriptor, at + start, at + end):
            continue
        if is_hole or not shared(start, end):
            write_all(descriptor, memoryview(piece)[start:end], at + start)


def _block_runs(piece: bytes) -> Iterator[tuple[int, int, bool]]:
    """Yield the parts of a piece that are blocks of zeros, and those that are not."""
    begin, were_zeros = 0, is_zeros(piece[:BLOCK_BYTES])
    if were_zeros and is_zeros(piece):
        yield 0, len(piece), True
        return
    for offset in range(BLOCK_BYTES, len(piece), BLOCK_BYTES):
        block = piece[offset : offset + BLOCK_BYTES]
        are_zeros = block == _BLOCK[: len(block)]
        if are_zeros is not were_zeros:
            yield begin, offset, were_zeros
            begin, were_zeros = offset, are_zeros
    yield begin, len(piece), were_zeros


def is_zeros(piece: bytes) -> bool:
    """Tell whether a piece, of at most `PIECE_BYTES`, is nothing but zeros."""
    return piece == _ZEROS[: len(piece)]


def write_all(descriptor: int, piece: bytes | memoryview, at: int) -> None:
    """Write the whole of a piece at an offset."""
    view = memoryview(piece)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


def punch(descriptor: int, start: int, end: int) -> bool:
    """Make a hole; False where the file system cannot."""
    try:
        ioctl.punch_hole(descriptor, start, end - start)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
        return False
    return True

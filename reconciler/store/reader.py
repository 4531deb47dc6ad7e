"""Reading an exception store from an open file: header, exceptions, and the status they make.

The file may be damaged or planted. Every number is held against the file's size, and no number
decides what is read next: areas are where the layout has them. A piece that is read is 64 KiB at
most, whatever the header says of its chunks. So time and memory grow with the exceptions that are
really in the file; the last metadata chunk is read to its end, which is 1 GiB at the very most.

What it does not do: it reads no data chunk, and writes nothing. On the file of a live disk the
answer is that of some moment, and exceptions that the kernel has not committed are not in it.
Raises StoreError, and OSError from the file. No privilege but that to read the file.
May be imported by `store.files`, everything above the kernel layer, and tests.
"""

from __future__ import annotations

import itertools
import os
import stat
import struct
from collections.abc import Iterator
from typing import Final

import attrs

from reconciler.store.finding import Finding, FindingKind, StoreDamaged
from reconciler.store.layout import (
    HEADER_BYTES,
    PAIR_BYTES,
    VALID_OFFSET,
    Header,
    foreign,
    parse_header,
)
from reconciler.store.seen import Seen
from statemachine.observed import SnapshotHealth, SnapshotStatus
from statemachine.units import Bytes

SIZE_MAX: Final = Bytes(2**62)
"""The largest file that is read: whatever is within it can be counted in the kernel's sectors."""

_PIECE_BYTES: Final = 64 * 1024
_ZEROS: Final = bytes(_PIECE_BYTES)
_NUMBER_BYTES: Final = 8
_CHUNKS_MAX: Final = 2**64
"""More than a number of 64 bits can say: the bound of a disk whose size is not known."""


@attrs.frozen(kw_only=True)
class CopiedChunk:
    """An exception: chunk `old` of the disk is in chunk `new` of the store.

    Its pair stands at `offset` in the file.
    """

    old: int
    new: int
    offset: int


def file_size(descriptor: int) -> Bytes:
    """Return the size of an open file; raises StoreError when it is no regular file."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise foreign("no regular file")
    if found.st_size > SIZE_MAX.count:
        raise foreign(f"a file of {found.st_size} bytes; allowed: at most {SIZE_MAX.count}")
    return Bytes(found.st_size)


def read_header(descriptor: int) -> Header | None:
    """Read the header of an open CoW file; None if nothing has been written to it yet.

    Raises:
        StoreError: the file is no exception store.
    """
    return parse_header(os.pread(descriptor, HEADER_BYTES, 0))


def exceptions(
    descriptor: int, header: Header, *, size: Bytes, disk: Bytes | None = None
) -> Iterator[CopiedChunk]:
    """Yield the exceptions of a store in the order in which they were committed.

    Args:
        descriptor: the file, open for reading; its position is neither used nor changed.
        header: what `read_header` returned.
        size: of the file: what `file_size` returned.
        disk: the size of the disk, where it is known.

    Raises:
        StoreDamaged: at the first finding. What came before it is of the same damaged store: do
            nothing that cannot be taken back before the end is reached.
    """
    for found in scan(descriptor, header, size=size, disk=disk):
        if isinstance(found, Finding):
            raise StoreDamaged(found)
        yield found


def scan(
    descriptor: int, header: Header, *, size: Bytes, disk: Bytes | None = None
) -> Iterator[CopiedChunk | Finding]:
    """Yield the sound exceptions of a store, and what is wrong with the others.

    Memory: see `seen`. Arguments as for `exceptions`. An invalid store is read like a valid one.
    """
    judge = _Judge(header, size, disk)
    if not header.valid:
        message = "the header says that the snapshot is invalid; allowed: 1, which is valid"
        yield Finding(kind=FindingKind.INVALID, offset=VALID_OFFSET, message=message)
    ended = False
    try:
        for area in itertools.count():
            for offset, raw in _pieces(descriptor, header, area, size):
                committed = b"" if ended else _committed(raw)
                ended = len(committed) < len(raw)
                yield from judge.pairs(offset, committed)
                yield from _after_end(offset, raw, len(committed))
            if ended:
                return
    except StoreDamaged as error:
        yield error.finding


def status(descriptor: int, header: Header, *, size: Bytes) -> SnapshotStatus:
    """Return the status that the kernel would show for a store.

    It costs some seconds for ten million exceptions, and no memory. Arguments as for `exceptions`.

    Raises:
        StoreDamaged: the store does not end within the file, or has data beyond its end.
    """
    if not header.valid:
        return SnapshotStatus(health=SnapshotHealth.INVALID)
    last_new = 0
    for area in itertools.count():
        for offset, raw in _pieces(descriptor, header, area, size):
            committed = _committed(raw)
            news = _numbers(committed)[1::2]
            last_new = max(last_new, *news) if news else last_new
            if last_new >= header.chunks_in(size):
                at = offset + news.index(last_new) * PAIR_BYTES + _NUMBER_BYTES
                raise StoreDamaged(_beyond_store(at, last_new, header.chunks_in(size)))
            if len(committed) < len(raw):
                return header.status(last_new=last_new, area=area, size=size)
    raise AssertionError("unreachable: the areas are counted without end")


class _Judge:
    """Holds each exception against the file, the disk and the exceptions before it."""

    def __init__(self, header: Header, size: Bytes, disk: Bytes | None) -> None:
        self._header = header
        self._store_chunks = header.chunks_in(size)
        self._disk_chunks = _CHUNKS_MAX if disk is None else -(-disk.count // header.chunk_bytes)
        self._olds = Seen()
        self._news = Seen()

    def pairs(self, offset: int, raw: bytes) -> Iterator[CopiedChunk | Finding]:
        """Judge the pairs that stand at an offset."""
        numbers = _numbers(raw)
        for old, new in zip(numbers[::2], numbers[1::2], strict=True):
            is_old = old < self._disk_chunks and self._olds.add(old)
            is_new = (
                new < self._store_chunks
                and not self._header.is_metadata(new)
                and self._news.add(new)
            )
            if is_old and is_new:
                yield CopiedChunk(old=old, new=new, offset=offset)
            if not is_old:
                yield self._old(offset, old)
            if not is_new:
                yield self._new(offset + _NUMBER_BYTES, new)
            offset += PAIR_BYTES

    def _old(self, offset: int, old: int) -> Finding:
        """Say what is wrong with the chunk of the disk."""
        if old >= self._disk_chunks:
            message = f"chunk {old} of the disk; allowed: below {self._disk_chunks}, its end"
            return Finding(kind=FindingKind.BEYOND_DISK, offset=offset, message=message)
        message = f"chunk {old} of the disk for the second time; allowed: once"
        return Finding(kind=FindingKind.OLD_TWICE, offset=offset, message=message)

    def _new(self, offset: int, new: int) -> Finding:
        """Say what is wrong with the chunk of the store."""
        if new >= self._store_chunks:
            return _beyond_store(offset, new, self._store_chunks)
        if self._header.is_metadata(new):
            message = f"chunk {new} of the store, which is metadata; allowed: a data chunk"
            return Finding(kind=FindingKind.IN_METADATA, offset=offset, message=message)
        message = f"chunk {new} of the store for the second time; allowed: once"
        return Finding(kind=FindingKind.NEW_TWICE, offset=offset, message=message)


def _pieces(descriptor: int, header: Header, area: int, size: Bytes) -> Iterator[tuple[int, bytes]]:
    """Read an area's metadata chunk piece by piece; yields (offset, bytes)."""
    chunk = header.area_chunk(area)
    start = chunk * header.chunk_bytes
    inside = chunk < header.chunks_in(size)
    for offset in range(start, start + header.chunk_bytes, _PIECE_BYTES):
        wanted = min(_PIECE_BYTES, header.chunk_bytes)
        raw = os.pread(descriptor, wanted, offset) if inside else b""
        if len(raw) < wanted:
            message = (
                f"the metadata chunk of area {area} ends at byte {start + header.chunk_bytes}; "
                f"allowed: up to {size.count}, the end of the file"
            )
            raise StoreDamaged(Finding(kind=FindingKind.TRUNCATED, offset=start, message=message))
        yield offset, raw


def _committed(raw: bytes) -> bytes:
    """Cut off the first pair whose second number is 0, and all behind it."""
    news = _numbers(raw)[1::2]
    return raw[: news.index(0) * PAIR_BYTES] if 0 in news else raw


def _numbers(raw: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(raw) // _NUMBER_BYTES}Q", raw)


def _after_end(offset: int, raw: bytes, end: int) -> Iterator[Finding]:
    """Find the first byte behind the store's end that is not 0; one finding for a piece."""
    rest = raw[end:]
    if rest != _ZEROS[: len(rest)]:
        at = offset + end + len(rest) - len(rest.lstrip(b"\0"))
        message = "something behind the end of the store; allowed: zeros"
        yield Finding(kind=FindingKind.AFTER_END, offset=at, message=message)


def _beyond_store(offset: int, new: int, chunks: int) -> Finding:
    message = f"chunk {new} of the store; allowed: below {chunks}, the end of the file"
    return Finding(kind=FindingKind.BEYOND_STORE, offset=offset, message=message)

"""A store without what it need not have: which exceptions stay, and how the new store is laid out.

An exception whose chunk is equal to what the base has there says nothing; a chunk of zeros needs no
room. Exceptions stand in their order and data chunks follow them, so a store becomes smaller only
by being written anew. Reads by functions that the caller gives, so that it works on files and in
the simulation alike; writes nothing. Memory: some 150 bytes an exception.

See `layout` for where a store's format is from. May be imported by the kernel layer and tests.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs

from reconciler.store.layout import HEADER_CHUNKS, PAIR_BYTES, Header, pack_header

Read = Callable[[int, int], bytes]
"""Returns the bytes from one place up to another, with zeros past the end."""
LEAST_BYTES: Final = 64 * 1024
"""What zeros alone must give back."""
_PAIR = struct.Struct("<2Q")


@attrs.frozen(kw_only=True)
class Kept:
    """What stays of a store.

    Attributes:
        pairs: (chunk of the disk, chunk of the old store), in the order of the disk.
        data: how many of these chunks are not zeros.
        dropped: how many exceptions were equal to the base.
    """

    pairs: tuple[tuple[int, int], ...]
    data: int
    dropped: int

    def is_worth_it(self, header: Header, before: int) -> bool:
        """Tell whether a new store gives room back.

        A file system rounds up, and takes some for itself: a store that was just written anew takes
        a little more than it needs, and must not be written again for that.

        Args:
            header: of the store.
            before: how many bytes the old one takes.
        """
        saved = before - self.needs_bytes(header)
        return saved > 0 if self.dropped else saved >= LEAST_BYTES

    def needs_bytes(self, header: Header) -> int:
        """How much room the new store takes."""
        areas = len(self.pairs) // header.pairs_per_area + 1
        return (HEADER_CHUNKS + areas + self.data) * header.chunk_bytes


def judge(
    header: Header, pairs: Iterable[tuple[int, int]], *, store: Read, base: Read, disk_bytes: int
) -> Kept:
    """Say which exceptions stay.

    Args:
        header: of the store.
        pairs: its exceptions, in any order.
        store: reads the CoW file.
        base: reads the base.
        disk_bytes: the size of the disk; what its last chunk has behind that is nobody's.
    """
    size = header.chunk_bytes
    kept: list[tuple[int, int]] = []
    data = dropped = 0
    for old, new in sorted(pairs):
        here = min(size, disk_bytes - old * size)
        content = store(new * size, new * size + here)
        if content == base(old * size, old * size + here):
            dropped += 1
            continue
        kept.append((old, new))
        data += any(content)
    return Kept(pairs=tuple(kept), data=data, dropped=dropped)


def pieces(header: Header, kept: Kept, *, store: Read) -> Iterator[tuple[int, bytes]]:
    """Yield what the new store consists of, as (where, bytes); all else of it is zeros.

    The header comes last: without it the file is no store.
    """
    size = header.chunk_bytes
    for area in range(0, len(kept.pairs), header.pairs_per_area):
        at = header.area_chunk(area // header.pairs_per_area)
        some = kept.pairs[area : area + header.pairs_per_area]
        for number, (_, new) in enumerate(some, at + 1):
            content = store(new * size, (new + 1) * size)
            if any(content):
                yield number * size, content
        packed = (_PAIR.pack(old, number) for number, (old, _) in enumerate(some, at + 1))
        yield at * size, b"".join(packed)
    yield 0, pack_header(header)


def is_same(
    header: Header, kept: Kept, found: Iterable[tuple[int, int]], *, old: Read, new: Read
) -> bool:
    """Tell whether a new store has the exceptions that were kept, each with its content.

    Args:
        header: of both stores.
        kept: what was to be in the new one.
        found: the new one's exceptions, in any order.
        old: reads the old store.
        new: reads the new one.
    """
    size = header.chunk_bytes
    there = sorted(found)
    if [pair[0] for pair in there] != [pair[0] for pair in kept.pairs]:
        return False
    return all(
        old(was * size, (was + 1) * size) == new(now * size, (now + 1) * size)
        for (_, was), (_, now) in zip(kept.pairs, there, strict=True)
    )


def pairs_in(header: Header, read: Read, size_bytes: int) -> list[tuple[int, int]]:
    """Return the exceptions of a sound store, without any check; `reader` is for real files."""
    found: list[tuple[int, int]] = []
    area = 0
    while header.area_chunk(area) * header.chunk_bytes < size_bytes:
        start = header.area_chunk(area) * header.chunk_bytes
        raw = read(start, start + header.pairs_per_area * PAIR_BYTES)
        here = [(old, new) for old, new in _PAIR.iter_unpack(raw) if new]
        found += here
        if len(here) < header.pairs_per_area:
            break
        area += 1
    return found

"""CoW files for tests, made of their numbers, sound or damaged in one place."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from reconciler.store.layout import Header, pack_header
from statemachine.units import Sectors

HEADER = Header(valid=True, chunk=Sectors(8))
SMALL = Header(valid=True, chunk=Sectors(1))
"""With chunks of one sector, so that an area is full with 32 exceptions."""


def data_chunks(header: Header, count: int) -> list[int]:
    """Return the first chunks that the kernel gives out for data, in its order."""
    found: list[int] = []
    chunk = 0
    while len(found) < count:
        chunk += 1
        if not header.is_metadata(chunk):
            found.append(chunk)
    return found


def cow_file(
    header: Header, pairs: Sequence[tuple[int, int]], *, chunks: int | None = None
) -> bytes:
    """Lay out a store that holds these pairs.

    Args:
        header: the header.
        pairs: (chunk of the disk, chunk of the store), in the order of their commits.
        chunks: the size of the file; without it, large enough for all that is in it.
    """
    area_of = len(pairs) // header.pairs_per_area
    least = max([header.area_chunk(area_of), *(new for _, new in pairs if new < 10_000)]) + 1
    raw = bytearray((least if chunks is None else chunks) * header.chunk_bytes)
    raw[:16] = pack_header(header)
    for number, pair in enumerate(pairs):
        area, index = divmod(number, header.pairs_per_area)
        at = header.area_chunk(area) * header.chunk_bytes + index * 16
        struct.pack_into("<2Q", raw, at, *pair)
    return bytes(raw)


def written(header: Header, count: int, *, chunks: int | None = None) -> bytes:
    """Lay out the store of a disk whose first chunks were written in order."""
    return cow_file(header, list(enumerate(data_chunks(header, count))), chunks=chunks)

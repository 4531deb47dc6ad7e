"""Writing an exception store as the kernel would: for a disk whose changes are known at once.

Chunks are committed in the order in which they are given. See docs/reference/cow-file-format.md.
May be imported by carrying and tests.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from reconciler.kernel import extents
from reconciler.store.layout import Header, pack_header
from statemachine.units import CHUNK_BYTES, CHUNK_SECTORS, Bytes, Sectors

_HEADER: Final = Header(valid=True, chunk=Sectors(CHUNK_SECTORS))
_PAIR = struct.Struct("<2Q")


class NewStore:
    """Writes a store into an empty open file.

    Args:
        descriptor: open for reading and writing.
        size: of the file; large enough for all that will be put.
    """

    def __init__(self, descriptor: int, size: Bytes) -> None:
        self._descriptor = descriptor
        self._pairs = bytearray()
        self._area = 0
        os.ftruncate(descriptor, size.count)
        extents.write_all(descriptor, pack_header(_HEADER), 0)

    def put(self, start: int, content: bytes) -> None:
        """Add changed chunks; each chunk of the disk is put once.

        Args:
            start: where on the disk, a multiple of a chunk.
            content: what is there; the last chunk of a disk may be short.
        """
        assert start % CHUNK_BYTES == 0, start
        at = 0
        while at < len(content):
            here = len(self._pairs) // _PAIR.size
            room = (_HEADER.pairs_per_area - here) * CHUNK_BYTES
            part = content[at : at + room]
            new = _HEADER.area_chunk(self._area) + 1 + here
            extents.write_sparse(self._descriptor, part, new * CHUNK_BYTES)
            old = (start + at) // CHUNK_BYTES
            for number in range(-(-len(part) // CHUNK_BYTES)):
                self._pairs += _PAIR.pack(old + number, new + number)
            at += len(part)
            if len(self._pairs) == CHUNK_BYTES:
                self._commit()

    def finish(self) -> None:
        """Write what is left; then the store is whole."""
        self._commit()

    def _commit(self) -> None:
        """Write the metadata of an area; the next begins with a hole, which is its end."""
        place = _HEADER.area_chunk(self._area) * CHUNK_BYTES
        extents.write_all(self._descriptor, bytes(self._pairs), place)
        self._pairs.clear()
        self._area += 1

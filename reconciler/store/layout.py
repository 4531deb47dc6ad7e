"""The layout of a persistent exception store: its header, its areas, and what a chunk is for.

```text
chunk 0     header: magic, valid, version, chunk size
chunk 1     metadata of area 0: pairs (chunk of the disk, chunk of the store)
2, 3, …     the data chunks of area 0, one for each pair
then        metadata of area 1, and so on; a pair whose second number is 0 ends the store
```

Pure: bytes in, values out. It knows no file, so it can't say whether a chunk is beyond its end;
`reader` can. A page in the same words: docs/reference/cow-file-format.md.

Source: struct disk_header, struct disk_exception, area_location(), skip_metadata() and
persistent_usage() in drivers/md/dm-snap-persistent.c; dm_exception_store_set_chunk_size() in
drivers/md/dm-exception-store.c (Linux 6.1).
May be imported by the rest of `store`, the kernel layer and everything above it, and tests.
"""

from __future__ import annotations

import struct
from typing import Final

import attrs

from statemachine.errors import PermanentError
from statemachine.observed import SnapshotHealth, SnapshotStatus
from statemachine.units import SECTOR_BYTES, Bytes, Sectors

MAGIC: Final = 0x70416E53  # SNAP_MAGIC: "SnAp" in little endian
VERSION: Final = 1  # SNAPSHOT_DISK_VERSION
HEADER_CHUNKS: Final = 1  # NUM_SNAPSHOT_HDR_CHUNKS
CHUNK_SECTORS_MAX: Final = 2**21
"""The largest power of two that the kernel takes: a chunk in bytes must fit an `int`."""

_HEADER = struct.Struct("<4I")
"""struct disk_header: magic, valid, version, chunk size in sectors."""
HEADER_BYTES: Final = _HEADER.size
VALID_OFFSET: Final = 4
PAIR_BYTES: Final = 16
"""struct disk_exception: the chunk of the disk (old), the chunk of the store (new), u64 each."""


class StoreError(PermanentError):
    """A file is no exception store, or a damaged one; the message names the offset."""


@attrs.frozen(kw_only=True)
class Header:
    """What chunk 0 says.

    Attributes:
        valid: False once the kernel has given the snapshot up. There is no way back.
        chunk: the size of a chunk; byre's own stores have 8 sectors.
    """

    valid: bool
    chunk: Sectors

    @property
    def chunk_bytes(self) -> int:
        """The size of a chunk in bytes."""
        return self.chunk.count * SECTOR_BYTES

    @property
    def pairs_per_area(self) -> int:
        """How many exceptions one metadata chunk holds, and so how many data chunks follow it."""
        return self.chunk_bytes // PAIR_BYTES

    def area_chunk(self, area: int) -> int:
        """Return the chunk in which an area, counted from 0, has its metadata."""
        return HEADER_CHUNKS + area * (self.pairs_per_area + 1)

    def is_metadata(self, chunk: int) -> bool:
        """Tell whether a chunk of the store is the header's or an area's own, and so never data."""
        stride = self.pairs_per_area + 1
        return chunk < HEADER_CHUNKS or chunk % stride == HEADER_CHUNKS

    def chunks_in(self, size: Bytes) -> int:
        """How many whole chunks a file of this size has; rounded down."""
        return size.count // self.chunk_bytes

    def status(self, *, last_new: int, area: int, size: Bytes) -> SnapshotStatus:
        """Return what the kernel would say of a valid store.

        Args:
            last_new: the highest chunk of the store that an exception names, 0 without any.
            area: the area that has room left, counted from 0.
            size: of the file; the loop device drops what is less than a sector at its end.
        """
        next_free = max(last_new, HEADER_CHUNKS) + 1
        if self.is_metadata(next_free):
            next_free += 1
        return SnapshotStatus(
            health=SnapshotHealth.VALID,
            used=Sectors(next_free * self.chunk.count),
            total=Sectors(size.count // SECTOR_BYTES),
            metadata=Sectors((area + 1 + HEADER_CHUNKS) * self.chunk.count),
        )


def parse_header(raw: bytes) -> Header | None:
    """Read the first 16 bytes of a CoW file; more may be given, fewer are a file that short.

    Returns:
        None if all of them are 0: nobody has written yet, and the kernel would begin a store.
        The kernel looks at the magic number alone, and would overwrite whatever else is there.

    Raises:
        StoreError: it is something else, or a store that this version of the layout cannot read.
    """
    if not any(raw[:HEADER_BYTES]):
        return None
    if len(raw) < HEADER_BYTES:
        raise foreign(f"{len(raw)} bytes, which cannot hold the header of {HEADER_BYTES}")
    magic, valid, version, chunk = _HEADER.unpack_from(raw)
    if magic != MAGIC:
        raise foreign(f"magic number {magic:#010x}; allowed: {MAGIC:#010x}")
    if version != VERSION:
        raise foreign(f"version {version}; allowed: {VERSION}")
    if valid not in (0, 1):
        raise foreign(f"{valid} as its mark of validity; allowed: 0, 1")
    if not 0 < chunk <= CHUNK_SECTORS_MAX or chunk & (chunk - 1):
        allowed = f"a power of two up to {CHUNK_SECTORS_MAX}"
        raise foreign(f"chunks of {chunk} sectors; allowed: {allowed}")
    return Header(valid=bool(valid), chunk=Sectors(chunk))


def pack_header(header: Header) -> bytes:
    """Return the 16 bytes that `parse_header` reads back."""
    return _HEADER.pack(MAGIC, header.valid, VERSION, header.chunk.count)


def foreign(found: str) -> StoreError:
    """Build the error for a file that is no exception store."""
    hint = "give a CoW file that byre, or device-mapper with a persistent snapshot, has written"
    return StoreError(f"this is no exception store: found {found}", kind="cow-foreign", hint=hint)

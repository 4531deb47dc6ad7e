"""The persistent exception store: header, metadata areas and data chunks, byte for byte.

It reads and writes the CoW device as the kernel does, so a CoW file of the simulation can be read
by whatever reads one of a real host, and a damaged one is found out in the same way. Chunk 0 is
the header; then areas, each of one metadata chunk ((old, new) pairs of u64) and the data chunks
that it speaks of.

Source: drivers/md/dm-snap-persistent.c of 6.1; numbers and errnos measured on it (tests/contract).
Raises OSError. May be imported by the rooms of `sim` only.
"""

from __future__ import annotations

import errno
import struct
from typing import Final

from reconciler.kernel.sim.files import in_sectors, os_error
from reconciler.kernel.sim.loops import LoopDevice
from statemachine.observed import SnapshotHealth, SnapshotStatus
from statemachine.units import SECTOR_BYTES

_HEADER = struct.Struct("<4I")
_PAIR = struct.Struct("<2Q")
_MAGIC: Final = 0x70416E53  # "SnAp"
_VERSION: Final = 1
_HEADER_CHUNKS: Final = 1  # NUM_SNAPSHOT_HDR_CHUNKS


class Store:
    """Which chunks of the origin were copied to where on a CoW device.

    Args:
        cow: the CoW device.
        chunk_sectors: of the table; an existing header's own number wins.
        keeps_overflow: "PO": a full store is an overflow instead of invalid.
    """

    __slots__ = ("_area", "_committed", "_next_free", "chunk_sectors", "cow", "exceptions",
                 "keeps_overflow", "overflowed", "valid")  # fmt: skip

    def __init__(self, cow: LoopDevice, chunk_sectors: int, *, keeps_overflow: bool) -> None:
        self.cow = cow
        self.chunk_sectors = chunk_sectors
        self.keeps_overflow = keeps_overflow
        self.exceptions: dict[int, int] = {}
        self.valid = True
        self.overflowed = False
        self._next_free = _HEADER_CHUNKS + 1
        self._area = 0
        self._committed = 0

    @property
    def chunk_bytes(self) -> int:
        """The size of a chunk."""
        return self.chunk_sectors * SECTOR_BYTES

    def open(self) -> None:
        """Read the header and all exceptions, or write both where the magic number is 0.

        Raises:
            OSError: ENXIO for another magic number, EINVAL for another version or a chunk size
                that is no power of two, EIO for what cannot be read or written.
        """
        magic, valid, version, chunk = _HEADER.unpack(self.cow.read(0, _HEADER.size))
        if magic == 0:
            # Neither is flushed (write_header and zero_disk_area): the first commit does that.
            self._write_header()
            self._wipe_area(0)
        elif magic != _MAGIC:
            raise os_error(errno.ENXIO, "not an exception store")
        elif version != _VERSION or chunk == 0 or chunk & (chunk - 1):
            raise os_error(errno.EINVAL, "not an exception store of version 1")
        else:
            self.chunk_sectors = chunk
            self.valid = bool(valid)
            if self.valid:
                self._read_exceptions()

    def status(self) -> SnapshotStatus:
        """Return the numbers of persistent_usage(), or the word of its ill health."""
        if not self.valid:
            return SnapshotStatus(health=SnapshotHealth.INVALID)
        if self.overflowed:
            return SnapshotStatus(health=SnapshotHealth.OVERFLOW)
        return SnapshotStatus(
            health=SnapshotHealth.VALID,
            used=in_sectors(self._next_free * self.chunk_sectors),
            total=in_sectors(self.cow.sectors),
            metadata=in_sectors((self._area + 1 + _HEADER_CHUNKS) * self.chunk_sectors),
        )

    def add(self, old: int, content: bytes) -> bool:
        """Give a chunk of the origin its own copy, with this content.

        Returns:
            False if that was not possible: the store has become invalid, or overflowed.
        """
        if self.cow.sectors < (self._next_free + 1) * self.chunk_sectors:
            return self._full()
        new = self._next_free
        self._next_free += 1
        self._skip_metadata()
        try:
            self.cow.write(new * self.chunk_bytes, content)
            self._commit(old, new)
        except OSError:
            self.invalidate()
            return False
        self.exceptions[old] = new
        return True

    def invalidate(self) -> None:
        """Lose all exceptions for ever: the header says so."""
        self.valid = False
        try:
            self._write_header()
        except OSError:
            return  # the kernel can do no more either; a later life would read it as valid

    @property
    def _pairs_per_area(self) -> int:
        return self.chunk_bytes // _PAIR.size

    def _full(self) -> bool:
        if self.keeps_overflow:
            self.overflowed = True
        else:
            self.invalidate()
        return False

    def _commit(self, old: int, new: int) -> None:
        """Write the pair; a full area makes the next one, which must fit as well."""
        at = self._area_at(self._area) + self._committed * _PAIR.size
        self.cow.write(at, _PAIR.pack(old, new))
        self._committed += 1
        if self._committed == self._pairs_per_area:
            self._wipe_area(self._area + 1)
            self._area += 1
            self._committed = 0
        self.cow.flush()

    def _read_exceptions(self) -> None:
        while not self._read_area():
            self._area += 1
        self._skip_metadata()

    def _read_area(self) -> bool:
        """Read one area's pairs; tells whether it has room left, and so is the last one."""
        raw = self.cow.read(self._area_at(self._area), self.chunk_bytes)
        for at, (old, new) in enumerate(_PAIR.iter_unpack(raw)):
            if new == 0:
                self._committed = at
                return True
            self.exceptions[old] = new
            self._next_free = max(self._next_free, new + 1)
        return False

    def _skip_metadata(self) -> None:
        if self._next_free % (self._pairs_per_area + 1) == _HEADER_CHUNKS:
            self._next_free += 1

    def _area_at(self, area: int) -> int:
        return (_HEADER_CHUNKS + area * (self._pairs_per_area + 1)) * self.chunk_bytes

    def _wipe_area(self, area: int) -> None:
        self.cow.write(self._area_at(area), bytes(self.chunk_bytes))

    def _write_header(self) -> None:
        header = _HEADER.pack(_MAGIC, self.valid, _VERSION, self.chunk_sectors)
        self.cow.write(0, header.ljust(self.chunk_bytes, b"\0"))

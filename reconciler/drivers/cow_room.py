"""How large a CoW file must be, how large it begins, how far and when it is grown. Pure.

May be imported by the dm-snapshot driver, its appraisal, protect and bench.
"""

from __future__ import annotations

import functools
from typing import Final

import attrs

from statemachine.spec import DiskSpec
from statemachine.units import DEFAULT_CHUNK, Bytes

EXCEPTION_BYTES: Final = 16
"""An (old, new) pair of a metadata chunk: one of 4096 bytes holds 256 (kernel fact 10; struct
disk_exception in drivers/md/dm-snap-persistent.c)."""
HEADROOM: Final = 64 * 2**20
"""What must be free ahead of a writer: as fast as memory, it needs some 30 ms for this."""
EMPTY_CHUNKS: Final = 2
"""What a store takes that nothing was written to: its header and its first metadata chunk."""


@functools.lru_cache(maxsize=256)
def cow_size(base: Bytes, chunk: Bytes = DEFAULT_CHUNK) -> Bytes:
    """Return how large a CoW file must be so that a full rewrite of the disk never overflows it.

    One header chunk, all data chunks, one metadata chunk for each 256 of them (with chunks of 4
    KiB; for each 4096 with chunks of 64 KiB), and the one that the kernel clears ahead when an area
    fills (`zero_disk_area` of the next area in persistent_commit_exception).

    Args:
        base: the size of the disk.
        chunk: the size of a chunk; a power of two.

    Raises:
        UnitError: the base is no multiple of 512, or the result passes 2**63 - 512 bytes.
    """
    data = base.sectors_exact().to_bytes().rounded_up(chunk).count // chunk.count
    metadata = data // (chunk.count // EXCEPTION_BYTES) + 2
    return Bytes((1 + data + metadata) * chunk.count)


def bound(spec: DiskSpec, base: Bytes) -> Bytes:
    """Return how far a disk's CoW may be grown: what a full rewrite needs, or `cow_max`."""
    full = cow_size(base, spec.chunk_size)
    return min(full, spec.cow_max) if spec.cow_max is not None else full


def first_size(spec: DiskSpec, base: Bytes) -> Bytes:
    """Return how large a disk's CoW file is made: `cow_size` of its spec, within its bound."""
    most = bound(spec, base)
    return min(most, spec.cow_size) if spec.cow_size is not None else most


@attrs.frozen(kw_only=True)
class CowRoom:
    """How full the exception store of a live disk is."""

    used: Bytes
    capacity: Bytes
    """What its loop device offers."""
    file_size: Bytes
    """What the file has; more than `capacity` when a growth was cut short."""
    recorded: Bytes
    """What the log says that the file has; less when a growth was cut short."""
    least: Bytes
    """What the spec asks for by now."""
    bound: Bytes
    full: Bytes
    """What a full rewrite needs: a store of this size never overflows."""
    chunk: Bytes = DEFAULT_CHUNK

    @property
    def percent(self) -> int:
        """How much of it is used, in percent, rounded down."""
        return 100 * self.used.count // max(self.capacity.count, 1)

    @property
    def is_safe(self) -> bool:
        """Whether it can never overflow."""
        return self.capacity >= self.full

    def wanted_size(self) -> Bytes | None:
        """Return how large the CoW should be made now; None when it is well as it is.

        One that is small is grown at its first write: half full would be too late.
        """
        wanted = max(self.least, self.file_size)
        if self.used.count > grow_above(self.capacity.count, self.chunk):
            wanted = max(wanted, self._next_size())
        is_done = self.capacity >= wanted and self.recorded >= wanted
        return None if is_done else wanted

    def is_at_its_end(self) -> bool:
        """Tell whether a write might overflow it soon, and it may not be grown."""
        if self.is_safe or self.capacity < self.bound:
            return False
        return self.used.count >= freeze_above(self.capacity.count)

    def _next_size(self) -> Bytes:
        size = max(self.capacity.count * 2, self.used.count + 2 * HEADROOM)
        return min(Bytes(size).rounded_up(self.chunk), self.bound)


def grow_above(capacity: int, chunk: Bytes) -> int:
    """Return past how many used bytes a CoW is grown: while its headroom is still there."""
    return max(capacity - max(HEADROOM, capacity // 8), EMPTY_CHUNKS * chunk.count)


def freeze_above(capacity: int) -> int:
    """Return from how many used bytes on a CoW that may not be grown is frozen."""
    return capacity - min(HEADROOM, capacity // 4)

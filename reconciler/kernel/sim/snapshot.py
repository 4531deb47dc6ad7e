"""The snapshot target in memory: a table on two devices, read and written chunk by chunk.

Source: drivers/md/dm-snap.c of 6.1, measured (tests/contract). Not modelled: merging,
discards, origins that are no loop device.
Raises OSError. May be imported by the rooms of `sim` only.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final, Protocol

import attrs

from reconciler.kernel.sim.files import in_sectors, os_error
from reconciler.kernel.sim.loops import LOOP_MAJOR, LoopDevice, Loops
from reconciler.kernel.sim.store import Store
from reconciler.kernel.sim.transient import TransientStore
from statemachine.observed import DeviceNumber, SnapshotHealth, SnapshotStatus, SnapshotTable
from statemachine.units import SECTOR_BYTES, Sectors

_STORES: Final = frozenset({"P", "PO", "N"})


class Zero:
    """The target of a foreign device: reads zeros, takes writes and forgets them."""

    __slots__ = ("length",)

    def __init__(self, length: Sectors) -> None:
        self.length = length

    def read(self, offset: int, length: int) -> bytes:
        """Return zeros."""
        del offset
        return bytes(length)

    def write(self, offset: int, data: bytes) -> bool:
        """Forget the data."""
        del offset, data
        return True

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Below(Protocol):
    """What a snapshot is over: a loop device, or a dm device that makes one longer."""

    claims: dict[int, int]

    @property
    def sectors(self) -> int:
        """How long it is."""

    def read(self, offset: int, length: int) -> bytes:
        """Return a part of it."""


class Snapshot:
    """One loaded snapshot table. `store` is None until another one is handed over to it."""

    __slots__ = ("_loops", "_minor", "active", "cow", "length", "origin", "store", "table")

    def __init__(
        self, table: SnapshotTable, minor: int, loops: Loops, origin: Below | None = None
    ) -> None:
        """Open the two devices; raises ENXIO if one is no loop device, EINVAL if both are one.

        Args:
            table: what to load.
            minor: of the device that it is for.
            loops: where the loop devices are.
            origin: the dm device that the table names as its origin; None for a loop.
        """
        _check(table, is_mapped=origin is not None)
        self.table = table
        self.length = table.length
        self.origin: Below = origin or loops.made(table.origin.minor)
        self.cow = loops.made(table.cow.minor)
        self.store: Store | None = None
        self.active = False
        self._minor = minor
        self._loops = loops
        self.origin.claims[minor] = self.origin.claims.get(minor, 0) + 1
        loops.claim(self.cow, minor)

    def close(self) -> None:
        """Close the two devices; autoclear may take them."""
        self._loops.unclaim(self.cow, self._minor)
        if isinstance(self.origin, LoopDevice):
            self._loops.unclaim(self.origin, self._minor)
        else:
            self.origin.claims[self._minor] -= 1

    def open_store(self) -> None:
        """Read the exceptions from the CoW device, or begin a store on an empty one."""
        kind, chunk = self.table.persistent, self.table.chunk.count
        store = Store(self.cow, chunk, keeps_overflow=kind == "PO")
        if kind == "N":
            store = TransientStore(self.cow, chunk)
        store.open()
        self.store = store

    def check_size(self) -> None:
        """Refuse a table that is longer than its origin; an unbound origin has no size to tell."""
        if 0 < self.origin.sectors < self.length.count:
            raise os_error(errno.EINVAL, "origin too small for target")

    def shares_with(self, other: Snapshot) -> bool:
        """Tell whether both are on the same two devices."""
        return (self.origin, self.cow) == (other.origin, other.cow)

    def take_over(self, source: Snapshot) -> None:
        """Get the exceptions of the table that was live before; that one is invalid from now."""
        self.store, source.store = source.store, None

    def status(self) -> SnapshotStatus:
        """Return what the status line says."""
        if self.store is not None:
            return self.store.status()
        if self.active:  # its exceptions were handed over
            return SnapshotStatus(health=SnapshotHealth.INVALID)
        return SnapshotStatus(health=SnapshotHealth.VALID, total=Sectors(self.cow.sectors))

    def table_now(self) -> SnapshotTable:
        """Return the table as the kernel prints it: with the store's own chunk size."""
        chunk = in_sectors(self.store.chunk_sectors) if self.store else self.table.chunk
        return self.table if chunk == self.table.chunk else attrs.evolve(self.table, chunk=chunk)

    def read(self, offset: int, length: int) -> bytes:
        """Read each chunk from where it is; EIO once the store is invalid."""
        store = self._valid_store()
        parts = []
        for chunk, start, end in _chunks_of(offset, length, store.chunk_bytes):
            new = store.exceptions.get(chunk)
            device: Below = self.origin if new is None else self.cow
            at = (chunk if new is None else new) * store.chunk_bytes
            parts.append(device.read(at + start, end - start))
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> bool:
        """Write each chunk to its own copy, made first if need be.

        Returns:
            False if the store could not take it (EIO for the writer): it is full or was lost.
        """
        store = self._valid_store()
        done = 0
        for chunk, start, end in _chunks_of(offset, len(data), store.chunk_bytes):
            piece = data[done : done + end - start]
            done += len(piece)
            if not self._write_chunk(store, chunk, start, piece):
                return False
        return True

    def flush(self) -> None:
        """Make what was written survive a power cut."""
        self.cow.flush()

    def _write_chunk(self, store: Store, chunk: int, start: int, piece: bytes) -> bool:
        new = store.exceptions.get(chunk)
        if new is not None:
            try:
                self.cow.write(new * store.chunk_bytes + start, piece)
            except OSError:  # a plain IO error: the exceptions stay as they are
                return False
            return True
        if store.overflowed:
            return False
        if len(piece) == store.chunk_bytes:  # nothing to copy, so the origin is not read
            return store.add(chunk, piece)
        whole = self._origin_chunk(chunk, store.chunk_bytes)
        return store.add(chunk, whole[:start] + piece + whole[start + len(piece) :])

    def _origin_chunk(self, chunk: int, size: int) -> bytes:
        at = chunk * size
        there = max(min(size, self.origin.sectors * SECTOR_BYTES - at), 1)
        return self.origin.read(at, there).ljust(size, b"\0")

    def _valid_store(self) -> Store:
        if self.store is None or not self.store.valid:
            raise os_error(errno.EIO, "snapshot is invalid")
        return self.store


def _check(table: SnapshotTable, *, is_mapped: bool) -> None:
    chunk = table.chunk.count
    if table.persistent not in _STORES or chunk == 0 or chunk & (chunk - 1):
        raise os_error(errno.EINVAL, "table")
    if table.length.count == 0 or table.origin == table.cow:
        raise os_error(errno.EINVAL, "table")
    for device in (table.cow,) if is_mapped else (table.origin, table.cow):
        if not _is_loop(device):
            raise os_error(errno.ENXIO, device)


def _is_loop(device: DeviceNumber) -> bool:
    return device.major == LOOP_MAJOR


def _chunks_of(offset: int, length: int, chunk_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Cut a range of bytes into (chunk, start in the chunk, end in the chunk)."""
    end = offset + length
    while offset < end:
        chunk, start = divmod(offset, chunk_bytes)
        stop = min(chunk_bytes, start + end - offset)
        yield chunk, start, stop
        offset += stop - start

"""A disk with a write cache that forgets: QEMU's log of all writes, and what a power cut leaves.

QEMU's block driver `blklogwrites` writes down each write and each flush of the guest's disk. After
QEMU was killed, `replay` builds the disk as a real one could be found: everything up to the last
flush that was done is there, and of the writes after it any part, in any combination. A killed
QEMU alone loses nothing, as its host's page cache lives on, so a forgotten fsync would not be seen.

Format: block/blklogwrites.c of QEMU, which is that of Linux's dm-log-writes
(Documentation/admin-guide/device-mapper/log-writes.rst). May be imported by the torture tests.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import attrs

SECTOR: Final = 512
FLUSH: Final = 1
DISCARD: Final = 4
MAGIC: Final = 0x6A736677736872
_SUPER: Final = struct.Struct("<QQQI")
_ENTRY: Final = struct.Struct("<QQQQ")
DEVICE: Final = "virtio-blk-pci,drive=state,discard=off,write-zeroes=off"
"""Without what would leave holes in the log, whose length is looked at while it grows."""
_KINDS: Final = frozenset({0, FLUSH, DISCARD})
_LONGEST: Final = 1 << 16
"""A request of a virtio disk is far below 32 MiB; what says more is no entry."""


class BadLog(Exception):
    """The log is not what QEMU writes; the message says where."""


@attrs.frozen
class Entry:
    """One request: `count` sectors from `sector` on; their data begins at `data_at` in the log."""

    sector: int
    count: int
    flags: int
    data_at: int


@attrs.frozen(kw_only=True)
class Cut:
    """What one power cut did: how many writes were safe, kept by luck, and forgotten."""

    safe: int
    kept: int
    forgotten: int


def drive(image: Path, log: Path) -> list[str]:
    """Return QEMU's options for a virtio disk `image` whose requests are written to `log`."""
    files = {
        name: {"driver": "file", "filename": str(path)}
        for name, path in (("file", image), ("log", log))
    }
    node = {"driver": "blklogwrites", "node-name": "state", **files}
    return ["-blockdev", json.dumps(node), "-device", DEVICE]


def count(log: Path, image: Path, *, before: int) -> tuple[int, int]:
    """Return how many requests the log had when it was `before` bytes long, and has by now."""
    with log.open("rb") as source:
        found = list(read(source, sectors=image.stat().st_size // SECTOR))
    return sum(entry.data_at - SECTOR < before for entry in found), len(found)


def replay(log: Path, image: Path, keep: Callable[[], bool], *, requests: int | None = None) -> Cut:
    """Do to `image`, which is as it was when the log began, what a power cut leaves of the log.

    Args:
        log: as the killed QEMU left it.
        image: is changed.
        keep: is asked for each write after the last flush whether it reached the disk.
        requests: how many were made before the power went; None for all.

    Raises:
        BadLog: the log is not one.
    """
    with log.open("rb") as source, image.open("r+b") as target:
        entries = list(read(source, sectors=image.stat().st_size // SECTOR))[:requests]
        flushes = [index for index, entry in enumerate(entries) if entry.flags & FLUSH]
        safe_until = flushes[-1] if flushes else 0
        writes = [(i, e) for i, e in enumerate(entries) if e.count and not e.flags & DISCARD]
        safe = [entry for index, entry in writes if index < safe_until]
        unsafe = [entry for index, entry in writes if index >= safe_until]
        kept = [entry for entry in unsafe if keep()]
        for entry in (*safe, *kept):
            source.seek(entry.data_at)
            target.seek(entry.sector * SECTOR)
            target.write(source.read(entry.count * SECTOR))
    return Cut(safe=len(safe), kept=len(kept), forgotten=len(unsafe) - len(kept))


def read(log: BinaryIO, *, sectors: int) -> Iterator[Entry]:
    """Yield the entries of a log.

    Requests are written down side by side: the kill may have come before one that began earlier
    than its neighbours. Up to the count that the last flush left in the head, such a hole is
    passed over; beyond it, it is the end.

    Args:
        log: open for reading.
        sectors: how large the disk is.

    Raises:
        BadLog: it has no head of a log.
    """
    head = log.read(_SUPER.size)
    if len(head) < _SUPER.size or not any(head):
        return  # killed before the first flush
    magic, version, counted, sector_bytes = _SUPER.unpack(head)
    if (magic, version, sector_bytes) != (MAGIC, 1, SECTOR):
        raise BadLog(f"its head is {head!r}")
    at, seen = SECTOR, 0
    end = log.seek(0, 2)
    while at < end:
        entry = _entry_at(log, at, sectors)
        if entry is None and seen >= counted:
            return
        if entry is None:
            at += SECTOR
            continue
        seen += 1
        yield entry
        has_data = not entry.flags & DISCARD
        at = entry.data_at + (entry.count * SECTOR if has_data else 0)


def _entry_at(log: BinaryIO, at: int, sectors: int) -> Entry | None:
    """Return the entry at a place, None when what is there cannot be one."""
    log.seek(at)
    raw = log.read(SECTOR)
    if len(raw) < SECTOR or any(raw[_ENTRY.size :]) or not any(raw):
        return None
    sector, count, flags, _ = _ENTRY.unpack_from(raw)
    fits = count <= _LONGEST and sector + count <= sectors
    if flags not in _KINDS or not fits or not (count or flags):
        return None
    return Entry(sector, count, flags, at + SECTOR)

"""Checkpoints: what all disks were after one event, kept in the log's database.

A checkpoint is bound to the event it stands on by that event's seq and hash, and has a digest of
its own. It says nothing that the events do not; it says it without reading them all. So a start
and a look at an earlier moment read from the newest one that fits, and a replay compares.

`living` holds the records of all disks that were not removed. `gone` holds those that were removed
since the checkpoint before; in the first one of a log whose oldest events are in an archive, all of
them. So the removed ones are written once each, however many checkpoints there are.

Works on a connection, begins and commits nothing. May be imported by eventlog and what stands
above it in `statemachine`.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import attrs

from statemachine.errors import LogDamaged
from statemachine.events import canonical_bytes
from statemachine.names import HOST
from statemachine.record import Record, from_row
from statemachine.schema import CHECKPOINT_COLUMNS, has_table

if TYPE_CHECKING:
    import sqlite3

EVENTS_BETWEEN: Final = 1024
"""The least number of events between two checkpoints: about what a start takes to read."""
EVENTS_PER_DISK: Final = 5
"""With many disks they stand further apart, so that they stay a small part of the log."""
_COLUMNS: Final = ", ".join(CHECKPOINT_COLUMNS)
_INSERT: Final = (
    f"INSERT INTO checkpoints ({_COLUMNS}) "  # noqa: S608 - constants
    f"VALUES ({', '.join('?' * len(CHECKPOINT_COLUMNS))})"
)
_LEVEL: Final = 6


@attrs.frozen(kw_only=True)
class Checkpoint:
    """One row of `checkpoints`; the records are packed. `earliest` is UTC in ns."""

    seq: int
    hash: str
    earliest: int
    """The earliest `at` of the events since the checkpoint before: clocks go back."""
    disks: int
    removed: int
    living: bytes
    gone: bytes
    digest: str

    @property
    def next_due(self) -> int:
        """The seq from which on the next checkpoint is due."""
        return self.seq + max(EVENTS_BETWEEN, EVENTS_PER_DISK * self.disks)

    def check(self) -> None:
        """Check that it is what was written; raises LogDamaged."""
        if self.digest != _digest(self):
            msg = f"the checkpoint at event {self.seq} was edited: its digest does not fit"
            raise LogDamaged(msg, hint=WAY_OUT)

    def records(self) -> Iterator[Record]:
        """Yield the records of the disks that were not removed."""
        return self._unpacked(self.living)

    def removed_records(self) -> Iterator[Record]:
        """Yield the records of those that were removed since the checkpoint before."""
        return self._unpacked(self.gone)

    def removed_but_wanted(self) -> Iterator[Record]:
        """Yield those of `removed_records` that were wanted again while they were being removed."""
        return self._unpacked(self.gone, lambda row: row["spec"]["state"] != "removed")

    def _unpacked(
        self, packed: bytes, is_wanted: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> Iterator[Record]:
        try:
            yield from map(from_row, filter(is_wanted, unpack(packed)))
        except (ValueError, KeyError, TypeError, zlib.error, RecursionError) as error:
            msg = f"the checkpoint at event {self.seq} cannot be read: {error}"
            raise LogDamaged(msg, hint=WAY_OUT) from error


WAY_OUT: Final = "the events decide: `byre replay --repair` writes records and checkpoints anew"


def exist(connection: sqlite3.Connection) -> bool:
    """Tell whether a log has the table; one of an older schema that is only read has not."""
    return has_table(connection, "checkpoints")


def newest(connection: sqlite3.Connection, *, up_to: int | None = None) -> Checkpoint | None:
    """Return the newest checkpoint, or the newest that stands on no event after `up_to`."""
    if not exist(connection):
        return None
    where = "" if up_to is None else f"WHERE seq <= {up_to:d}"
    query = f"SELECT {_COLUMNS} FROM checkpoints {where} ORDER BY seq DESC LIMIT 1"  # noqa: S608
    row = connection.execute(query).fetchone()
    return _of_row(row) if row else None


def first_after(connection: sqlite3.Connection, *, after: int) -> Checkpoint | None:
    """Return the first checkpoint after an event; None when there is none."""
    if not exist(connection):
        return None
    query = f"SELECT {_COLUMNS} FROM checkpoints WHERE seq > ? ORDER BY seq LIMIT 1"  # noqa: S608
    row = connection.execute(query, (after,)).fetchone()
    return _of_row(row) if row else None


def draft(connection: sqlite3.Connection) -> Checkpoint | None:
    """Make a checkpoint of the newest event, from the projection; None if it has one already.

    The connection must see one moment of the log: a transaction, or nobody else writes.
    """
    head = connection.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    before = newest(connection)
    since = before.seq if before else 0
    if head is None or head[0] <= since:
        return None
    query = "SELECT min(at) FROM events WHERE seq > ?"
    earliest = int(connection.execute(query, (since,)).fetchone()[0])
    living = "SELECT record FROM disks WHERE state <> 'removed' ORDER BY name"
    gone = (
        "SELECT record FROM (SELECT DISTINCT disk FROM events WHERE seq > ? AND disk <> ?) "
        "JOIN disks ON name = disk WHERE state = 'removed' ORDER BY name"
    )
    return make(
        seq=int(head[0]),
        hash_=str(head[1]),
        earliest=earliest,
        living=_Texts(connection.execute(living)),
        gone=_Texts(connection.execute(gone, (since, HOST))),
    )


def make(
    *, seq: int, hash_: str, earliest: int, living: Iterable[str], gone: Iterable[str]
) -> Checkpoint:
    """Return a checkpoint of some records, each as the JSON text that the table `disks` has."""
    packed_living, disks = pack(living)
    packed_gone, removed = pack(gone)
    made = Checkpoint(
        seq=seq,
        hash=hash_,
        earliest=earliest,
        disks=disks,
        removed=removed,
        living=packed_living,
        gone=packed_gone,
        digest="",
    )
    return attrs.evolve(made, digest=_digest(made))


def write(connection: sqlite3.Connection, made: Checkpoint) -> bool:
    """Write a checkpoint; False if another process was faster, or its event is gone by now."""
    before = newest(connection)
    stands = connection.execute(
        "SELECT 1 FROM events WHERE seq = ? AND hash = ?", (made.seq, made.hash)
    ).fetchone()
    if stands is None or (before is not None and before.seq >= made.seq):
        return False
    insert(connection, made)
    return True


def insert(connection: sqlite3.Connection, made: Checkpoint) -> None:
    """Write one, wherever it stands; the guards refuse what stands on no event."""
    connection.execute(_INSERT, attrs.astuple(made))


def pack(texts: Iterable[str]) -> tuple[bytes, int]:
    """Return lines of JSON, compressed (zlib), and how many there are; in bounded memory."""
    packer = zlib.compressobj(_LEVEL)
    parts, count = [], 0
    for text in texts:
        parts.append(packer.compress(text.encode() + b"\n"))
        count += 1
    return b"".join((*parts, packer.flush())), count


def unpack(packed: bytes) -> Iterator[dict[str, Any]]:
    """Yield what `pack` was given, read; in bounded memory."""
    unpacker = zlib.decompressobj()
    rest, left = b"", packed
    while left:
        rest += unpacker.decompress(left, _CHUNK_BYTES)
        left = unpacker.unconsumed_tail
        *lines, rest = rest.split(b"\n")
        yield from map(json.loads, lines)
    if not unpacker.eof:
        raise ValueError("it ends too early")


_CHUNK_BYTES: Final = 1 << 20


class _Texts(Iterator[str]):
    """The first column of some rows."""

    def __init__(self, rows: Iterator[tuple[str]]) -> None:
        self._rows = rows

    def __next__(self) -> str:
        return next(self._rows)[0]


def _digest(made: Checkpoint) -> str:
    """Return SHA-256 over the canonical bytes of the columns, with a digest for each blob."""
    columns = [
        hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value
        for value in attrs.astuple(made)[:-1]
    ]
    return hashlib.sha256(canonical_bytes(tuple(columns))).hexdigest()


def _of_row(row: tuple[Any, ...]) -> Checkpoint:
    return Checkpoint(**dict(zip(CHECKPOINT_COLUMNS, row, strict=True)))

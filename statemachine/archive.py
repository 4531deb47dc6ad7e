"""Archives: the oldest events of a log in a file of their own, compressed, with their own proof.

An archive is an SQLite file too. Its events are in blocks, column by column, compressed (xz); no
hash is stored but the last one of each block, as all of them follow from the columns and the hash
before. So a reader computes the chain, and an event that was edited does not lead to the hash at
the end of its block. The format is in docs/reference/log-format.md.

Written once, under another name until it is whole and on disk; never changed. May be imported by
retention, history and `reconciler`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import lzma
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from statemachine import checkpoints, database, timetravel
from statemachine.checkpoints import Checkpoint
from statemachine.errors import LogDamaged, RefusedError
from statemachine.events import Event, chain_hash
from statemachine.head import Noted
from statemachine.schema import ARCHIVE_COLUMNS, CHECKPOINT_COLUMNS

if TYPE_CHECKING:
    import sqlite3

APPLICATION_ID: Final = 0x42594152  # "BYAR"
FORMAT: Final = 1
BLOCK_EVENTS: Final = 10_000
"""How many events are packed together, and so how many a reader holds at a time."""
AT_MAX: Final = (1 << 63) - 1
"""Later than every event."""
CHECKPOINT_EVENTS: Final = 100_000
"""How far apart the checkpoints are that an archive keeps."""
_STORED: Final = (
    "disk",
    "generation",
    "version",
    "type",
    "at",
    "actor",
    "reason",
    "correlation_id",
    "boot_id",
    "data",
)
"""The columns of `events` that a block has; `at` is the difference to the event before."""
_AT: Final = _STORED.index("at")
_PRESET: Final = 4
_SQL_TYPES: Final = {int: "INTEGER", str: "TEXT", bytes: "BLOB"}
_TABLES: Final = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    """CREATE TABLE blocks (
        last_seq INTEGER PRIMARY KEY,
        first_seq INTEGER NOT NULL,
        last_hash TEXT NOT NULL,
        earliest INTEGER NOT NULL,
        events BLOB NOT NULL
    ) STRICT""",
)


@attrs.frozen(kw_only=True)
class Span:
    """Which events an archive has. Times are UTC in ns."""

    first_seq: int
    prev_hash: str
    """The hash of the event before the first one."""
    last_seq: int
    last_hash: str
    first_at: int
    last_at: int

    @property
    def events(self) -> int:
        """How many there are."""
        return self.last_seq - self.first_seq + 1


class Archive:
    """An open archive, for reading. Close it, or use it as a context manager.

    Raises:
        LogDamaged: it is no archive of byre, or its description is not what was written.
        LogUnavailable: it cannot be read.
        RefusedError: its format is newer than this program.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with database.told_apart(path):
            self.connection = database.connect(path, read_only=True)
        try:
            self.root_id, self.span = self._described()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; idempotent."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def events(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        earlier_than: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[Event]:
        """Yield events in the order of `seq`, or against it, one block in memory at a time.

        Each block is checked before the first of its events is given out.

        Args:
            after: only events with a larger seq.
            until: only events with this seq or a smaller one.
            earlier_than: leave out blocks that have no event of before this time, UTC in ns.
            newest_first: begin with the largest seq.

        Raises:
            LogDamaged: a block is not what was written.
        """
        end = self.span.last_seq if until is None else until
        query = (
            "SELECT first_seq, last_seq, last_hash, events, "
            "(SELECT last_hash FROM blocks AS before WHERE before.last_seq = blocks.first_seq - 1) "
            "FROM blocks WHERE last_seq > ? AND first_seq <= ? AND earliest < ? ORDER BY last_seq"
        )
        query += " DESC" if newest_first else ""
        bounds = (after, end, AT_MAX if earlier_than is None else earlier_than)
        with database.told_apart(self.path):
            for first, last, last_hash, packed, before in self.connection.execute(query, bounds):
                prev = self.span.prev_hash if first == self.span.first_seq else before
                events = self._unpacked(Noted(first - 1, prev), Noted(last, last_hash), packed)
                if newest_first:
                    events.reverse()
                yield from (each for each in events if after < each.seq <= end)

    def verify(self) -> Span:
        """Check the whole chain; returns what the archive has.

        Raises:
            LogDamaged: with the seq of the first event of the block that is bad.
        """
        seq, last_hash = self.span.first_seq - 1, self.span.prev_hash
        for event in self.events():
            if event.seq != seq + 1 or event.prev_hash != last_hash:
                raise self._damaged(seq + 1, "does not follow the one before")
            seq, last_hash = event.seq, event.hash
        if (seq, last_hash) != (self.span.last_seq, self.span.last_hash):
            raise self._damaged(
                seq + 1, f"is missing: the archive should end at {self.span.last_seq}"
            )
        return self.span

    def seq_at(self, at: int) -> int | None:
        """Return the seq of the last event of a time or earlier; None if there is none here."""
        query = "SELECT last_seq FROM blocks WHERE earliest <= ? ORDER BY last_seq DESC LIMIT 1"
        with database.told_apart(self.path):
            row = self.connection.execute(query, (at,)).fetchone()
            if row is None:
                return None
            query = "SELECT first_seq FROM blocks WHERE last_seq = ?"
            first = self.connection.execute(query, row).fetchone()[0]
        events = self.events(after=first - 1, until=row[0])
        return max(event.seq for event in events if event.at <= at)

    def moment(self, seq: int, *, everything: bool = False) -> timetravel.Moment:
        """Return the disks as they were after one of the events; see `timetravel.moment`."""
        with (
            database.told_apart(self.path),
            timetravel.roster_from(
                self.connection,
                checkpoints.newest(self.connection, up_to=seq),
                lambda since: self.events(after=since, until=seq),
                everything=everything,
            ) as roster,
        ):
            return timetravel.Moment.of(seq, roster, everything=everything)

    def _unpacked(self, before: Noted, last: Noted, packed: bytes) -> list[Event]:
        """Return the events of a block, their chain computed and checked."""
        try:
            columns = json.loads(lzma.decompress(packed))
            rows: list[tuple[Any, ...]] = list(zip(*columns, strict=True))
            events, seq, prev, at = [], before.seq, before.hash, 0
            for row in rows:
                seq, at = seq + 1, at + row[_AT]
                covered = (seq, *row[:_AT], at, *row[_AT + 1 :], prev)
                prev = chain_hash(covered)
                events.append(Event.of((*covered, prev)))
        except (ValueError, TypeError, lzma.LZMAError, EOFError) as error:
            raise self._damaged(
                before.seq + 1, f"and what follows cannot be read: {error}"
            ) from error
        if Noted(seq, prev) != last:
            raise self._damaged(before.seq + 1, f"or one up to {last.seq} was edited")
        return events

    def _described(self) -> tuple[str, Span]:
        with database.told_apart(self.path):
            application = self.connection.execute("PRAGMA application_id").fetchone()[0]
            if application != APPLICATION_ID:
                msg = f"{self.path} is no archive of byre (application id {application:#x})"
                raise LogDamaged(
                    msg, hint="`byre log archive` makes them; a log is opened by --root"
                )
            meta = dict(self.connection.execute("SELECT key, value FROM meta").fetchall())
        try:
            if int(meta["format"]) > FORMAT:
                msg = f"{self.path} has format {meta['format']}; this byre knows up to {FORMAT}"
                raise RefusedError(msg, hint="use the newer byre")
            return meta["root_id"], Span(
                first_seq=int(meta["first_seq"]),
                prev_hash=meta["prev_hash"],
                last_seq=int(meta["last_seq"]),
                last_hash=meta["last_hash"],
                first_at=int(meta["first_at"]),
                last_at=int(meta["last_at"]),
            )
        except (KeyError, ValueError) as error:
            msg = f"{self.path}: its table `meta` is not what was written: {error!r}"
            raise LogDamaged(msg, hint=_ANOTHER) from error

    def _damaged(self, seq: int, what: str) -> LogDamaged:
        return LogDamaged(f"{self.path}: event {seq} {what}", seq=seq, hint=_ANOTHER)


_ANOTHER: Final = "restore another copy of the archive; the log itself is not affected"


def write(
    path: Path,
    span: Span,
    *,
    root_id: str,
    events: Iterable[Event],
    kept: Iterable[Checkpoint],
    begin: Sequence[tuple[object, ...]],
) -> str:
    """Write an archive, whole and on disk when this returns.

    Args:
        path: the new file; there must be nothing.
        span: what the events are.
        root_id: whose they are.
        events: all of them, in order.
        kept: checkpoints among them, for looks at earlier moments.
        begin: the rows of the log's `archives` of what was before.

    Returns:
        SHA-256 of the file, in hex.

    Raises:
        RefusedError: there is something in its place.
        LogUnavailable: it cannot be written; what was begun is deleted.
    """
    partial = path.with_name(f"{path.name}.partial")
    for taken in (path, partial):
        if taken.exists() or taken.is_symlink():
            msg = f"{taken} exists; an archive is a new file"
            hint = "choose another name; what an interrupted attempt left may be deleted"
            raise RefusedError(msg, hint=hint)
    with database.told_apart(partial):
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        try:
            connection = database.connect(partial, read_only=False)
            with contextlib.closing(connection):
                connection.execute("PRAGMA journal_mode = OFF")  # it has its name when it is whole
                connection.execute("BEGIN")
                meta = {"format": FORMAT, "root_id": root_id, **attrs.asdict(span)}
                _fill(connection, meta=meta, events=events, kept=kept, begin=begin)
                connection.execute("COMMIT")
            with Archive(partial) as written:
                written.verify()
            digest = _settle(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    return digest


def _fill(
    connection: sqlite3.Connection,
    *,
    meta: Mapping[str, object],
    events: Iterable[Event],
    kept: Iterable[Checkpoint],
    begin: Sequence[tuple[object, ...]],
) -> None:
    tables = {"checkpoints": CHECKPOINT_COLUMNS, "archives": ARCHIVE_COLUMNS}
    for statement in _TABLES:
        connection.execute(statement)
    for name, columns in tables.items():
        told = ", ".join(
            f"{column} {_SQL_TYPES[kind]} NOT NULL" for column, kind in columns.items()
        )
        connection.execute(f"CREATE TABLE {name} ({told}) STRICT")
    connection.executemany("INSERT INTO meta VALUES (?, ?)", [(k, str(v)) for k, v in meta.items()])
    places = ", ".join("?" * len(ARCHIVE_COLUMNS))
    connection.executemany(f"INSERT INTO archives VALUES ({places})", begin)  # noqa: S608 - constants
    for block in _blocks(events):
        connection.execute("INSERT INTO blocks VALUES (?, ?, ?, ?, ?)", block)
    for each in kept:
        checkpoints.insert(connection, each)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def _blocks(events: Iterable[Event]) -> Iterator[tuple[object, ...]]:
    block: list[Event] = []
    for event in events:
        block.append(event)
        if len(block) == BLOCK_EVENTS:
            yield _packed(block)
            block = []
    if block:
        yield _packed(block)


def _packed(block: Sequence[Event]) -> tuple[object, ...]:
    columns: list[Sequence[Any]] = list(zip(*(each.columns()[1:-2] for each in block), strict=True))
    times = columns[_AT]
    columns[_AT] = [at - before for before, at in zip((0, *times), times, strict=False)]
    text = json.dumps(columns, separators=(",", ":"), ensure_ascii=False)
    packed = lzma.compress(text.encode(), preset=_PRESET)
    return block[-1].seq, block[0].seq, block[-1].hash, min(times), packed


def _settle(partial: Path, path: Path) -> str:
    """Give a whole file its name, on disk; returns its digest."""
    with partial.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return digest

"""The event log: one SQLite file that is the truth and the bus.

`append` is the only way in. It gives events their place, chains their hashes, moves the
projection, and returns when all of that is on disk. Several threads are committed as a group:
whoever comes first commits for all who wait. Several processes may append at once; the write lock
of SQLite orders them, and (generation, version) tells who decided on an old record.

What it does not do: no kernel call, no waiting for anything but the write lock (bounded), no
opinion about what a disk should become. May be imported by history and by `reconciler`.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import attrs

from statemachine import database, projection
from statemachine.errors import LogDamaged, LogUnavailable, VersionConflict
from statemachine.events import GENESIS, Event, EventType, NewEvent, chain_hash, encode
from statemachine.names import HOST
from statemachine.projection import Record
from statemachine.schema import DISK_COLUMNS, EVENT_COLUMNS

Row = tuple[Any, ...]

LOG_NAME: Final = "byre.db"
PAGE_EVENTS: Final = 1000
"""How many events are read at a time; bounds the memory of a scan."""

SELECT_EVENTS: Final = f"SELECT {', '.join(EVENT_COLUMNS)} FROM events"  # noqa: S608 - constants
_INSERT_EVENT: Final = (
    f"INSERT INTO events ({', '.join(EVENT_COLUMNS)}) "  # noqa: S608 - constants
    f"VALUES ({', '.join('?' * len(EVENT_COLUMNS))})"
)
_UPSERT_DISK: Final = (
    f"INSERT INTO disks ({', '.join(DISK_COLUMNS)}) "  # noqa: S608 - constants
    f"VALUES ({', '.join('?' * len(DISK_COLUMNS))}) ON CONFLICT(name) DO UPDATE SET "
    f"{', '.join(f'{column} = excluded.{column}' for column in DISK_COLUMNS)}"
)


class EventLog:
    """An open log. Safe to use from several threads; close it when done.

    Args:
        path: the database file; made, with its folder, unless `read_only`.
        boot_id: this boot, recorded with each event.
        read_only: open an existing log for questions only.
        clock_ns: UTC in nanoseconds.

    Raises:
        LogUnavailable: it cannot be opened (no privilege, no space, read-only, missing).
        LogDamaged: it is no log of byre, or its last event is not what was written.
        RefusedError: its schema is newer than this program.
    """

    def __init__(
        self,
        path: Path,
        *,
        boot_id: str = "",
        read_only: bool = False,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = path
        self.boot_id = boot_id
        self.commits = 0
        """How many commits this object made; for benchmarks and tests."""
        self.on_commit: Callable[[Sequence[Record]], None] = _nobody_listens
        """Called after each commit of this object with the records it moved, before `append`
        returns; must be quick."""
        self._clock_ns = clock_ns
        self._writer = None if read_only else database.open_log(path, read_only=False)
        # Apart from the writer: what is not committed yet must not be read.
        self._reader = database.open_log(path, read_only=True)
        self._read_lock = threading.Lock()
        self._commit_lock = threading.Lock()
        self._queue_lock = threading.Lock()
        self._queue: list[_Request] = []
        self._check_tail()
        self.root_id = str(self._read("SELECT value FROM meta WHERE key = 'root_id'")[0][0])

    def close(self) -> None:
        """Close the file; idempotent."""
        self._reader.close()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- writing -----------------------------------------------------------------------------

    def append(self, events: Sequence[NewEvent]) -> list[Event]:
        """Append events, all or none, and return when they are on disk.

        Args:
            events: in their order; several of one disk count up from the first one's `expect`.

        Returns:
            The events as stored.

        Raises:
            VersionConflict: a disk moved on since its record was read; nothing was appended.
            LogUnavailable: the file cannot be written now; nothing was appended.
            LogDamaged: the newest event is not what was written; nothing was appended.
        """
        request = _Request(events)
        with self._queue_lock:
            self._queue.append(request)
        with self._commit_lock:
            if not request.settled:
                self._commit_waiting()
        if request.error is not None:
            raise request.error
        return request.stored

    def rebuild_projection(self) -> int:
        """Throw the projection away and make it again from the events; returns how many disks."""
        writer = self._writable()
        with database.told_apart(self.path), database.write_lock(writer):
            writer.execute("DELETE FROM disks")
            records = replay(self.events())
            writer.executemany(_UPSERT_DISK, map(_disk_row, records.values()))
        return len(records)

    def _writable(self) -> sqlite3.Connection:
        assert self._writer is not None, "the log was opened for questions only"
        return self._writer

    def _commit_waiting(self) -> None:
        """Commit every waiting request in one transaction; runs under the commit lock."""
        with self._queue_lock:
            group, self._queue = self._queue, []
        moved: list[Record] = []
        try:
            writer = self._writable()
            with database.told_apart(self.path), database.write_lock(writer):
                batch = _Batch(writer, self.boot_id, self._clock_ns())
                for request in group:
                    batch.place(request)
                moved = batch.write()
            self.commits += 1
        except Exception as error:  # noqa: BLE001 - handed to every caller of the group
            for request in group:
                request.error = request.error or error
        except BaseException as error:
            for request in group:
                request.error = request.error or LogUnavailable(f"interrupted: {error!r}")
            raise
        finally:
            for request in group:
                request.settled = True
        self.on_commit(moved)

    # --- reading -----------------------------------------------------------------------------

    def record(self, name: str) -> Record | None:
        """Return one disk's record, None if the log never spoke of it."""
        rows = self._read("SELECT record FROM disks WHERE name = ?", name)
        return _read_record(rows[0][0]) if rows else None

    def records(self) -> list[Record]:
        """Return all records by name, removed ones too."""
        return [
            _read_record(row[0]) for row in self._read("SELECT record FROM disks ORDER BY name")
        ]

    def events(self, *, after: int = 0) -> Iterator[Event]:
        """Yield all events with a seq above `after`, in order, in bounded memory."""
        query = f"{SELECT_EVENTS} WHERE seq > ? ORDER BY seq LIMIT {PAGE_EVENTS}"
        while page := self._read(query, after):
            yield from (Event(*row) for row in page)
            after = page[-1][0]

    def select(self, where: str, *values: object) -> list[Event]:
        """Return the events of one query; `where` is SQL of ours, never a user's text."""
        return [Event(*row) for row in self._read(f"{SELECT_EVENTS} {where}", *values)]

    def last_seq(self, *, at: int | None = None) -> int:
        """Return the seq of the newest event, or of the newest until a time; 0 if there is none."""
        if at is None:
            return int(self._read("SELECT coalesce(max(seq), 0) FROM events")[0][0])
        return int(self._read("SELECT coalesce(max(seq), 0) FROM events WHERE at <= ?", at)[0][0])

    def changed_since(self, seq: int) -> tuple[int, dict[str, bool]]:
        """Return (newest seq, the disks with events after `seq`); cheap when none has.

        Of each disk it is told whether somebody asked for something (declared it, or had it
        tried again), or whether its events only say what a reconciler did.
        """
        newest = self.last_seq()
        if newest == seq:
            return newest, {}
        query = (
            "SELECT disk, max(type IN (?, ?)) FROM events "
            "WHERE seq > ? AND seq <= ? AND disk <> ? GROUP BY disk"
        )
        asked = (EventType.DISK_DECLARED.value, EventType.DISK_RECOVERED.value)
        rows = self._read(query, *asked, seq, newest, HOST)
        return newest, {disk: bool(was_asked) for disk, was_asked in rows}

    def _read(self, query: str, *values: object) -> list[Row]:
        with database.told_apart(self.path), self._read_lock:
            return self._reader.execute(query, values).fetchall()

    def _check_tail(self) -> None:
        for event in self.select("ORDER BY seq DESC LIMIT 1"):
            check_hash(event)


def _nobody_listens(moved: Sequence[Record]) -> None:
    """Do nothing."""
    del moved


def _read_record(text: object) -> Record:
    try:
        return projection.from_row(json.loads(str(text)))
    except ValueError as error:
        msg = f"a record of the table `disks` cannot be read: {error}"
        raise LogDamaged(msg, hint="the events decide: `byre replay --repair`") from error


def check_hash(event: Event) -> None:
    """Check that an event is what was written; raises LogDamaged with its seq."""
    if chain_hash(event.columns()[:-1]) != event.hash:
        msg = f"event {event.seq} is not what was written: its hash does not fit"
        hint = "`byre log verify` finds the first bad event; nothing was changed"
        raise LogDamaged(msg, seq=event.seq, hint=hint)


def replay(events: Iterator[Event]) -> dict[str, Record]:
    """Make all records from events alone, by name.

    Raises:
        LogDamaged: an event does not fit what went before it.
    """
    records: dict[str, Record] = {}
    for event in events:
        try:
            record = projection.apply(records.get(event.disk), event)
        except ValueError as error:
            raise LogDamaged(str(error), seq=event.seq) from error
        if record is not None:
            records[event.disk] = record
    return records


@attrs.define(eq=False)
class _Request:
    """One caller's events, waiting for a commit."""

    events: Sequence[NewEvent]
    settled: bool = False
    stored: list[Event] = attrs.field(factory=list)
    error: Exception | None = None


class _Batch:
    """The events of one transaction: placed one request after the other, then written at once."""

    def __init__(self, connection: sqlite3.Connection, boot_id: str, now_ns: int) -> None:
        self._connection = connection
        self._boot_id = boot_id
        self._now_ns = now_ns
        self._events: list[Event] = []
        self._records: dict[str, Record | None] = {}
        self._host_version: int | None = None
        newest = connection.execute(f"{SELECT_EVENTS} ORDER BY seq DESC LIMIT 1").fetchone()
        if newest is not None:
            check_hash(Event(*newest))
        self._seq: int = newest[0] if newest else 0
        self._hash: str = newest[-1] if newest else GENESIS

    def place(self, request: _Request) -> None:
        """Give one request's events their places, or note why it cannot be; all or none."""
        before = (self._seq, self._hash, self._host_version, dict(self._records))
        try:
            request.stored = [self._place(event) for event in request.events]
        except (VersionConflict, LogDamaged, ValueError) as error:
            request.error = error
            self._seq, self._hash, self._host_version, self._records = before
        else:
            self._events += request.stored

    def write(self) -> list[Record]:
        """Write all placed events and the records they moved; returns these records."""
        self._connection.executemany(_INSERT_EVENT, [event.columns() for event in self._events])
        names = dict.fromkeys(event.disk for event in self._events)
        moved = [record for name in names if (record := self._records.get(name))]
        self._connection.executemany(_UPSERT_DISK, map(_disk_row, moved))
        return moved

    def _place(self, new: NewEvent) -> Event:
        record = self._record(new.disk)
        generation, version = self._number(new, record)
        columns = (
            self._seq + 1,
            new.disk,
            generation,
            version,
            new.type.value,
            self._now_ns,
            new.actor,
            new.reason,
            new.correlation_id,
            self._boot_id,
            encode(new.type, new.data),
            self._hash,
        )
        event = Event(*columns, chain_hash(columns))
        self._seq, self._hash = event.seq, event.hash
        self._records[new.disk] = projection.apply(record, event)
        return event

    def _record(self, name: str) -> Record | None:
        if name not in self._records:
            query = "SELECT record FROM disks WHERE name = ?"
            row = self._connection.execute(query, (name,)).fetchone()
            self._records[name] = _read_record(row[0]) if row else None
        return self._records[name]

    def _number(self, new: NewEvent, record: Record | None) -> tuple[int, int]:
        if new.disk == HOST:
            return 0, self._next_host_version()
        current = record.expect if record else (0, 0)
        if new.expect is not None and new.expect != current:
            msg = f"{new.disk}: decided on version {new.expect}, but the log is at {current}"
            raise VersionConflict(msg, hint="read the record again and decide again")
        if record is not None and new.generation in (0, record.generation):
            return record.generation, record.version + 1
        if new.generation != current[0] + 1 or new.type is not EventType.DISK_DECLARED:
            msg = f"{new.disk}: {new.type} of generation {new.generation}, the log is at {current}"
            raise VersionConflict(msg)
        return new.generation, 1

    def _next_host_version(self) -> int:
        if self._host_version is None:
            query = "SELECT coalesce(max(version), 0) FROM events WHERE disk = ? AND generation = 0"
            self._host_version = int(self._connection.execute(query, (HOST,)).fetchone()[0])
        self._host_version += 1
        return self._host_version


def _disk_row(record: Record) -> tuple[object, ...]:
    failure = record.failure
    values = {
        "name": record.name,
        "id": record.id,
        "generation": record.generation,
        "version": record.version,
        "seq": record.seq,
        "state": record.state.value,
        "desired": record.desired.value,
        "driver": record.driver,
        "base": record.spec["base"],
        "device": record.device,
        "attempts": record.attempts,
        "next_retry_at": failure.retry_at if failure else None,
        "updated_at": record.updated_at,
        "record": json.dumps(projection.to_row(record), separators=(",", ":"), sort_keys=True),
    }
    return tuple(values[column] for column in DISK_COLUMNS)

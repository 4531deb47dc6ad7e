"""One transaction of the log: events get their places and hashes, and the projection moves along.

Works on a connection that holds the write lock; begins and commits nothing itself. The other half
is `roster`, which replays events and must give the same records.
May be imported by eventlog and what stands above it in `statemachine`.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from statemachine import basetable, payloads, projection, recent, registry
from statemachine.admission import Admission, Admit
from statemachine.errors import LogDamaged, RefusedError, VersionConflict
from statemachine.events import GENESIS, Event, EventType, NewEvent, chain_hash, encode
from statemachine.names import HOST
from statemachine.projection import Record
from statemachine.registry import Bases
from statemachine.schema import DISK_COLUMNS, EVENT_COLUMNS

if TYPE_CHECKING:
    import sqlite3

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


def known_record(text: object) -> Record:
    """Return a record as `read_record` does; one that was read or written a moment ago is at hand.

    For who works on a disk. Who proves the table reads what it says.
    """
    record = recent.find(str(text))
    if record is None:
        record = read_record(text)
        recent.keep(str(text), record)
    return record


def read_record(text: object) -> Record:
    """Return a record as the table `disks` has it; raises LogDamaged when it cannot be read."""
    try:
        return projection.from_row(json.loads(str(text)))
    except (ValueError, RecursionError) as error:
        msg = f"a record of the table `disks` cannot be read: {error}"
        raise LogDamaged(msg, hint="the events decide: `byre replay --repair`") from error


def is_intact(event: Event) -> bool:
    """Tell whether an event's hash is that of its columns."""
    try:
        return chain_hash(event.columns()[:-1]) == event.hash
    except (TypeError, ValueError):  # a torn page may hold anything in the place of a text
        return False


def check_hash(event: Event) -> None:
    """Check that an event is what was written; raises LogDamaged with its seq."""
    if not is_intact(event):
        msg = f"event {event.seq} is not what was written: its hash does not fit"
        hint = "`byre log verify` finds the first bad event; nothing was changed"
        raise LogDamaged(msg, seq=event.seq, hint=hint)


def write_records(connection: sqlite3.Connection, records: Iterable[Record]) -> None:
    """Write rows of the table `disks`, over those of the same names."""
    connection.executemany(_UPSERT_DISK, map(_disk_row, records))


def write_events(connection: sqlite3.Connection, events: Iterable[Event]) -> None:
    """Write events as they are, places and hashes and all; the guards refuse a gap."""
    connection.executemany(_INSERT_EVENT, (event.columns() for event in events))


@attrs.define(eq=False)
class Request:
    """One caller's events, waiting for a commit; `error` is why they were not stored."""

    events: Sequence[NewEvent]
    settled: bool = False
    stored: list[Event] = attrs.field(factory=list)
    error: Exception | None = None


class Batch:
    """The events of one transaction: placed one request after the other, then written at once.

    `boot_id` and `now_ns` are what the next events get; a story of a longer time moves them.
    `known` has records that need not be read; it is moved along. `proven` is the row of an event
    that the caller wrote before: it needs no other proof. `admit` may refuse a request.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        boot_id: str,
        now_ns: int,
        known: dict[str, Record | None] | None = None,
        *,
        proven: tuple[object, ...] = (),
        admit: Admit | None = None,
    ) -> None:
        self._admit = admit
        self._connection = connection
        self.boot_id = boot_id
        self.now_ns = now_ns
        self._events: list[Event] = []
        self._records: dict[str, Record | None] = {} if known is None else known
        self._bases: Bases | None = None
        self._host_version: int | None = None
        newest = connection.execute(f"{SELECT_EVENTS} ORDER BY seq DESC LIMIT 1").fetchone()
        if newest is not None and newest != proven:
            check_hash(Event(*newest))
        self.newest: tuple[Any, ...] = newest or ()
        """The row of the newest event, with those that were placed."""
        self._seq: int = newest[0] if newest else 0
        self._hash: str = newest[-1] if newest else GENESIS

    def place(self, request: Request) -> None:
        """Give one request's events their places, or note why it cannot be; all or none.

        A request that was placed before, in a transaction that failed, is placed anew.
        """
        request.error = None
        before = (self._seq, self._hash, self._host_version, self.newest, dict(self._records))
        bases = self._bases
        try:
            request.stored = [self._placed(event) for event in request.events]
            if self._admit is not None:
                self._admit(Admission(self._connection, before[-1], self._records))
        except (VersionConflict, RefusedError, LogDamaged, ValueError) as error:
            request.error = error
            self._seq, self._hash, self._host_version, self.newest, self._records = before
            self._bases = bases
        else:
            self._events += request.stored

    def put(self, events: Iterable[NewEvent]) -> None:
        """Give events their places; after an error nothing of this batch may be written.

        Raises:
            VersionConflict, LogDamaged, ValueError: one of them has no place.
        """
        self._events += map(self._placed, events)

    @property
    def head(self) -> tuple[int, str]:
        """The seq and the hash of the newest event, with those that were placed."""
        return self._seq, self._hash

    def write(self) -> list[Record]:
        """Write all placed events and the records they moved; returns these records."""
        write_events(self._connection, self._events)
        names = dict.fromkeys(event.disk for event in self._events)
        moved = [record for name in names if (record := self._records.get(name))]
        write_records(self._connection, moved)
        if self._bases is not None:
            basetable.write(self._connection, self._bases)
        return moved

    def _placed(self, new: NewEvent) -> Event:
        record = self._record(new.disk)
        generation, version = self._number(new, record)
        columns = (
            self._seq + 1,
            new.disk,
            generation,
            version,
            new.type.value,
            self.now_ns,
            new.actor,
            new.reason,
            new.correlation_id,
            self.boot_id,
            encode(new.type, new.data, actor=new.actor),
            self._hash,
        )
        self.newest = (*columns, chain_hash(columns))
        event = Event(*self.newest)
        self._seq, self._hash = event.seq, event.hash
        self._records[new.disk] = projection.apply(record, event, new.payload)
        if new.type in registry.TYPES or new.data.get("base_name"):
            self._note_bases(event)
        return event

    def _note_bases(self, event: Event) -> None:
        """Move the registered bases along, or refuse what does not fit them any more."""
        bases = dict(basetable.read(self._connection) if self._bases is None else self._bases)
        payload = payloads.read(event)
        registry.check(bases, payload)
        if isinstance(payload, payloads.BaseRemoved):
            basetable.refuse_in_use(self._connection, bases[payload.name], self._records)
        if event.type in registry.TYPES:
            registry.apply(bases, event)
            self._bases = bases

    def _record(self, name: str) -> Record | None:
        if name not in self._records:
            query = "SELECT record FROM disks WHERE name = ?"
            row = self._connection.execute(query, (name,)).fetchone()
            self._records[name] = known_record(row[0]) if row else None
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
        # What is adopted keeps the generation of its UUID; else none is ever left out.
        adopted = new.data.get("why") == payloads.ADOPTED and new.generation > current[0]
        follows = adopted or new.generation == current[0] + 1
        if not follows or new.type is not EventType.DISK_DECLARED:
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
    failure, text = record.failure, projection.to_text(record)
    recent.keep(text, record)
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
        "record": text,
    }
    return _in_order(values)


_in_order: Final[Callable[[dict[str, object]], tuple[object, ...]]] = operator.itemgetter(
    *DISK_COLUMNS
)

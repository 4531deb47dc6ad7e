"""One transaction of the log: events get their places and hashes, and the projection moves along.

Works on a connection that holds the write lock; begins and commits nothing itself. The other half
is `roster`, which replays events and must give the same records.
May be imported by eventlog and what stands above it in `statemachine`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from statemachine import basetable, diskrows, payloads, projection, registry
from statemachine.admission import Admission, Admit
from statemachine.commits import ASKING
from statemachine.diskrows import SELECT_RECORD, known_record
from statemachine.errors import LogDamaged, RefusedError, VersionConflict
from statemachine.events import (
    GENESIS,
    Event,
    EventType,
    NewEvent,
    chain_hash,
    check_hash,
    encode,
)
from statemachine.names import HOST
from statemachine.record import Record
from statemachine.registry import Bases
from statemachine.schema import EVENT_COLUMNS, SELECT_NEWEST

if TYPE_CHECKING:
    import sqlite3

Row = tuple[Any, ...]
"""A row of `events`, in the order of its columns."""

_DISK: Final = list(EVENT_COLUMNS).index("disk")
_TYPE: Final = list(EVENT_COLUMNS).index("type")
_INSERT_EVENT: Final = (
    f"INSERT INTO events ({', '.join(EVENT_COLUMNS)}) "  # noqa: S608 - constants
    f"VALUES ({', '.join('?' * len(EVENT_COLUMNS))})"
)


def write_events(connection: sqlite3.Connection, events: Iterable[Event]) -> None:
    """Write events as they are, places and hashes and all; the guards refuse a gap."""
    _write_rows(connection, [event.columns() for event in events])


def _write_rows(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    connection.executemany(_INSERT_EVENT, rows)


@attrs.define(eq=False)
class Request:
    """One caller's events, waiting for a commit; `error` is why they were not stored."""

    events: Sequence[NewEvent]
    settled: bool = False
    stored: list[Event] = attrs.field(factory=list)
    record: Record | None = None
    """Of the last event's disk, after it."""
    error: Exception | None = None


class Batch:
    """The events of one transaction: placed one request after the other, then written at once.

    `boot_id` and `now_ns` are what the next events get; a story of a longer time moves them.
    `known` has records that need not be read. They are as they were after `proven`, the row of an
    event that the caller wrote before, which needs no other proof; when somebody else has written
    since, they are not used. Who leaves `proven` out says that nobody has. `admit` may refuse a
    request.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        boot_id: str,
        now_ns: int,
        known: Mapping[str, Record | None] | None = None,
        *,
        proven: Row | None = None,
        admit: Admit | None = None,
    ) -> None:
        self._admit = admit
        self._connection = connection
        self.boot_id = boot_id
        self.now_ns = now_ns
        self._rows: list[Row] = []
        self.records: dict[str, Record | None] = {}
        """The records of the disks of this batch, moved along, by name."""
        self._begun: set[str] = set()
        """The disks whose row is not there yet, or is of an older generation."""
        self._before: dict[str, Record | None] = {}
        """The records as they were before the request that is being placed."""
        self._bases: Bases | None = None
        self._host_version: int | None = None
        self.newest: Row = connection.execute(SELECT_NEWEST).fetchone() or ()
        """The row of the newest event, with those that were placed."""
        if self.newest and self.newest != proven:
            check_hash(Event(*self.newest))
        self.follows: Final = proven in (None, self.newest)
        """Whether nobody else has written since `proven`."""
        self._known: Final = known if known and self.follows else {}

    def place(self, request: Request) -> None:
        """Give one request's events their places, or note why it cannot be; all or none.

        A request that was placed before, in a transaction that failed, is placed anew.
        """
        request.error = None
        self._before = {}
        count, newest, host_version = len(self._rows), self.newest, self._host_version
        bases = self._bases
        try:
            request.stored = [self._placed(event) for event in request.events]
            if request.stored:
                request.record = self.records[request.stored[-1].disk]
            if self._admit is not None:
                self._admit(Admission(self._connection, self._before, self.records))
        except (VersionConflict, RefusedError, LogDamaged, ValueError) as error:
            request.error = error
            self.newest, self._host_version, self._bases = newest, host_version, bases
            self.records |= self._before
            del self._rows[count:]

    def put(self, events: Iterable[NewEvent]) -> None:
        """Give events their places; after an error nothing of this batch may be written.

        Raises:
            VersionConflict, LogDamaged, ValueError: one of them has no place.
        """
        for event in events:
            self._placed(event)

    @property
    def head(self) -> tuple[int, str]:
        """The seq and the hash of the newest event, with those that were placed."""
        return (self.newest[0], self.newest[-1]) if self.newest else (0, GENESIS)

    def write(self) -> list[Record]:
        """Write all placed events and the records they moved; returns these records."""
        _write_rows(self._connection, self._rows)
        names = dict.fromkeys([row[_DISK] for row in self._rows])
        moved = [record for name in names if (record := self.records[name])]
        begun = [record for record in moved if record.name in self._begun] if self._begun else []
        if begun:
            diskrows.write(self._connection, begun)
        if len(begun) < len(moved):
            known = [record for record in moved if record.name not in self._begun]
            diskrows.move(self._connection, known)
        if self._bases is not None:
            basetable.write(self._connection, self._bases)
        return moved

    @property
    def was_asked(self) -> bool:
        """Whether one of the placed events is `ASKING`."""
        return not ASKING.isdisjoint([row[_TYPE] for row in self._rows])

    def _placed(self, new: NewEvent) -> Event:
        name = new.disk
        record = self._record(name)
        self._before.setdefault(name, record)
        generation, version = self._number(new, record)
        seq, prev_hash = self.head
        columns = (
            seq + 1,
            name,
            generation,
            version,
            str(new.type),
            self.now_ns,
            new.actor,
            new.reason,
            new.correlation_id,
            self.boot_id,
            encode(new.type, new.data, actor=new.actor),
            prev_hash,
        )
        row = (*columns, chain_hash(columns))
        event = Event(*row)
        moved = projection.apply(record, event, new.payload)
        if version == 1:
            self._begun.add(name)
        self.newest, self.records[name] = row, moved
        self._rows.append(row)
        if new.type in registry.TYPES or new.data.get("base_name"):
            self._note_bases(event)
        return event

    def _note_bases(self, event: Event) -> None:
        """Move the registered bases along, or refuse what does not fit them any more."""
        bases = dict(basetable.read(self._connection) if self._bases is None else self._bases)
        payload = payloads.read(event)
        registry.check(bases, payload)
        if isinstance(payload, payloads.BaseRemoved):
            basetable.refuse_in_use(self._connection, bases[payload.name], self.records)
        if event.type in registry.TYPES:
            registry.apply(bases, event)
            self._bases = bases

    def _record(self, name: str) -> Record | None:
        if name not in self.records:
            self.records[name] = self._known[name] if name in self._known else self._stored(name)
        return self.records[name]

    def _stored(self, name: str) -> Record | None:
        row = self._connection.execute(SELECT_RECORD, (name,)).fetchone()
        return known_record(row[0]) if row else None

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

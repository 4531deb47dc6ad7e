"""Reading the event log: records, events, and what is new.

A reader opens the file for questions only and makes nothing: a log that is missing has no events.
It knows rows, records and events, and none of the classes of payloads: a command that shows the
disks starts in half the time without them. `eventlog` is this and the way in.

What it does not do: no search (`search`), no proof (`proof`), no earlier moment (`past`). May be
imported by eventlog and what stands above it, and by `reconciler`.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from statemachine import database, logends
from statemachine.commits import ASKING, Change
from statemachine.diskrows import SELECT_RECORD, known_record, read_record
from statemachine.errors import LogDamaged
from statemachine.events import Event
from statemachine.head import Head, Noted
from statemachine.names import HOST
from statemachine.record import Record
from statemachine.schema import IN_USE, SELECT_EVENTS

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")
Row = tuple[Any, ...]

PAGE_EVENTS: Final = 1000
"""How many events are read at a time; bounds the memory of a scan."""
_RECORDS: Final = "SELECT record FROM disks ORDER BY name"
_RECORDS_IN_USE: Final = f"SELECT record FROM disks WHERE {IN_USE} ORDER BY name"  # noqa: S608 - constants
_RECORDS_IN_USE_AT: Final = f"""
SELECT record FROM disks WHERE ({IN_USE}) AND (
    json_extract(record, '$.spec.link') IN (SELECT value FROM json_each(?))
    OR json_extract(record, '$.spec."jail.root"') IN (SELECT value FROM json_each(?)))
ORDER BY name"""  # noqa: S608 - constants
_NAMES_IN_USE: Final = f"SELECT name, seq FROM disks WHERE {IN_USE} ORDER BY name"  # noqa: S608 - constants
_NEWS: Final = f"SELECT disk, seq, type FROM events WHERE seq > ? ORDER BY seq LIMIT {PAGE_EVENTS}"  # noqa: S608 - constants
BACKUP_HEAD: Final = "backup_head"
"""Where the table `meta` of a backup, and of a log that was restored from one, has its head."""


class LogReader:
    """A log that is open for questions. Safe to use from several threads; close it when done.

    Args:
        path: the database file.
        lenient: open a damaged one to see what is left; nothing is checked.

    Raises:
        LogUnavailable: it cannot be opened (no privilege).
        LogDamaged: it is no log of byre, its last event is not what was written, or events that
            were acknowledged are missing.
        RefusedError: its schema is newer than this program.
    """

    def __init__(self, path: Path, *, lenient: bool = False) -> None:
        self.path = path
        self.head = Head.of(path)
        """Where the newest event is noted, to see whether the end is still there."""
        self._read_lock = threading.Lock()
        noted = self.head.read()
        self._reader = database.open_log(path, read_only=True, lenient=lenient)
        try:
            if not lenient:
                with database.told_apart(path):
                    logends.check_end(self._reader, path, noted)
            self.root_id = self._root_id(lenient=lenient)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; idempotent."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def record(self, name: str) -> Record | None:
        """Return one disk's record, None if the log never spoke of it."""
        rows = self._read(SELECT_RECORD, name)
        return known_record(rows[0][0]) if rows else None

    def records(self) -> list[Record]:
        """Return all records by name, removed ones too."""
        return list(self.each_record(everything=True))

    def in_use(self) -> list[Record]:
        """Return the records by name but for the disks that are removed, and wanted so."""
        return list(self.each_record(everything=False))

    def each_record(self, *, everything: bool) -> Iterator[Record]:
        """Yield what `records` returns, or `in_use`, for who needs them one after the other.

        A thousand at once are ten megabytes, and to get these costs a fifth of reading them.
        """
        rows = self._read(_RECORDS if everything else _RECORDS_IN_USE)
        return (read_record(row[0]) for row in rows)

    def in_use_at(self, places: Collection[Path]) -> list[Record]:
        """Return the records of `in_use` whose link, or whose jail's node, may be at given paths.

        The database does the search: to read each record of thousands takes ten times as long.
        """
        links = {str(place) for place in places}
        roots = {str(folder) for place in places for folder in place.parents}
        rows = self._read(_RECORDS_IN_USE_AT, json.dumps(sorted(links)), json.dumps(sorted(roots)))
        return [read_record(row[0]) for row in rows]

    def names_in_use(self) -> dict[str, int]:
        """Return the names of `in_use`, each with the seq of its disk's newest event."""
        rows = self._read(_NAMES_IN_USE)
        return {str(name): int(seq) for name, seq in rows}

    def record_of(self, disk_id: str) -> Record | None:
        """Return the record of the disk with an id."""
        rows = self._read("SELECT record FROM disks WHERE id = ?", disk_id)
        return read_record(rows[0][0]) if rows else None

    def record_with_device(self, device_name: str) -> Record | None:
        """Return the record of a disk whose dm device has this name; reads all of them."""
        query = "SELECT record FROM disks WHERE json_extract(record, '$.device_name') = ? LIMIT 1"
        rows = self._read(query, device_name)
        return read_record(rows[0][0]) if rows else None

    def begins_after(self) -> Noted:
        """Return the event before the first one: the last in an archive; seq 0 if none is."""
        return self.at_one_moment(logends.begin)

    def at_one_moment(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """Ask several short questions of one moment, whoever appends meanwhile."""
        with database.told_apart(self.path), self._read_lock:
            self._reader.execute("BEGIN")
            try:
                return look(self._reader)
            finally:
                self._reader.execute("COMMIT")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[sqlite3.Connection]:
        """Hold one moment of the log, on a connection of its own, for as long as it takes.

        Others append meanwhile; SQLite keeps what this connection sees in the WAL until the end.
        """
        connection = database.open_log(self.path, read_only=True)
        try:
            with database.told_apart(self.path):
                connection.execute("BEGIN")
                connection.execute("SELECT 1 FROM sqlite_master").fetchone()  # from here on
                yield connection
        finally:
            connection.close()

    def events(self, *, after: int = 0) -> Iterator[Event]:
        """Yield all events with a seq above `after`, in order, in bounded memory.

        What is in an archive is not among them, even while it is being deleted here.
        """
        after = max(after, self.begins_after().seq) if after >= 0 else after
        query = f"{SELECT_EVENTS} WHERE seq > ? ORDER BY seq LIMIT {PAGE_EVENTS}"
        while page := self._read(query, after):
            yield from (Event(*row) for row in page)
            after = page[-1][0]

    def select(self, where: str, *values: object) -> list[Event]:
        """Return the events of one query; `where` is SQL of ours, never a user's text."""
        return [Event(*row) for row in self._read(f"{SELECT_EVENTS} {where}", *values)]

    def rows(self, query: str, *values: object) -> list[Row]:
        """Return the rows of one query; the query is SQL of ours, never a user's text."""
        return self._read(query, *values)

    def last_seq(self) -> int:
        """Return the seq of the newest event; 0 if there is none."""
        return int(self._read("SELECT coalesce(max(seq), 0) FROM events")[0][0])

    def backup_head(self) -> str:
        """Return the head, SEQ:HASH, that this file was backed up with; "" if it never was."""
        rows = self._read("SELECT value FROM meta WHERE key = ?", BACKUP_HEAD)
        return str(rows[0][0]) if rows else ""

    def newest_record(self) -> tuple[str, int] | None:
        """Return which disk's record stands on the newest event, and on which; None for none."""
        rows = self._read("SELECT name, seq FROM disks ORDER BY seq DESC LIMIT 1")
        return (str(rows[0][0]), int(rows[0][1])) if rows else None

    def changed_since(self, seq: int) -> tuple[int, list[Change]]:
        """Return (newest seq, the disks with events after `seq`); cheap when none has."""
        found: dict[str, tuple[int, bool]] = {}
        is_more = True
        while is_more:
            page = self._read(_NEWS, seq)
            for disk, at, kind in page:
                was_asked = kind in ASKING or (disk in found and found[disk][1])
                seq, found[disk] = at, (at, was_asked)
            is_more = len(page) == PAGE_EVENTS
        found.pop(HOST, None)
        return seq, [Change(disk, last, was_asked) for disk, (last, was_asked) in found.items()]

    def _read(self, query: str, *values: object) -> list[Row]:
        try:
            with self._read_lock:
                return self._reader.execute(query, values).fetchall()
        except database.RAISED as error:
            raise database.sorted_out(error, self.path) from error

    def _root_id(self, *, lenient: bool) -> str:
        try:
            rows = self._read("SELECT value FROM meta WHERE key = 'root_id'")
        except LogDamaged:
            if not lenient:
                raise
            rows = []
        if rows:
            return str(rows[0][0])
        if not lenient:
            msg = f"{self.path} has no root_id in its table `meta`"
            raise LogDamaged(msg, hint="`byre log salvage` keeps the events; or restore a copy")
        return ""

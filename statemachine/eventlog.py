"""The event log: one SQLite file that is the truth and the bus.

`append` is the only way in. It gives events their place, chains their hashes, moves the
projection, and returns when all of that is on disk. Several threads are committed as a group:
whoever comes first commits for all who wait. Several processes may append at once; the write lock
of SQLite orders them, and (generation, version) tells who decided on an old record.

What it does not do: no kernel call, no waiting for anything but the write lock (bounded), no
opinion about what a disk should become. May be imported by diagnosis, proof, history, salvage and
`reconciler`.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from statemachine import basetable, checkpoints, database
from statemachine.admission import Admit
from statemachine.basefacts import Base
from statemachine.batch import ASKING, SELECT_EVENTS, Batch, Request
from statemachine.commits import Change, Commit
from statemachine.diskrows import SELECT_RECORD, known_record, read_record
from statemachine.errors import LogDamaged, LogUnavailable
from statemachine.events import Event, NewEvent
from statemachine.head import Noted
from statemachine.names import HOST
from statemachine.projection import Record
from statemachine.schema import IN_USE
from statemachine.turns import Turns
from statemachine.writer import Writer, check_end, head_of

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")
Row = tuple[Any, ...]

PAGE_EVENTS: Final = 1000
"""How many events are read at a time; bounds the memory of a scan."""
_RECORDS_IN_USE: Final = f"SELECT record FROM disks WHERE {IN_USE} ORDER BY name"  # noqa: S608 - constants
_RECORDS_IN_USE_AT: Final = f"""
SELECT record FROM disks WHERE ({IN_USE}) AND (
    json_extract(record, '$.spec.link') IN (SELECT value FROM json_each(?))
    OR json_extract(record, '$.spec."jail.root"') IN (SELECT value FROM json_each(?)))
ORDER BY name"""  # noqa: S608 - constants
_NAMES_IN_USE: Final = f"SELECT name, seq FROM disks WHERE {IN_USE} ORDER BY name"  # noqa: S608 - constants
_NEWS: Final = f"SELECT disk, seq, type FROM events WHERE seq > ? ORDER BY seq LIMIT {PAGE_EVENTS}"  # noqa: S608 - constants
KNOWN_MAX: Final = 256
"""How many records are kept for the next commit: of those that are worked on at one time."""
BACKUP_HEAD: Final = "backup_head"
"""Where the table `meta` of a backup, and of a log that was restored from one, has its head."""


class EventLog:
    """An open log. Safe to use from several threads; close it when done.

    Args:
        path: the database file; made, with its folder, unless `read_only`.
        boot_id: this boot, recorded with each event.
        read_only: open an existing log for questions only.
        lenient: with `read_only`: open a damaged one to see what is left; nothing is checked.
        clock_ns: UTC in nanoseconds.
        reserve_bytes: how much room to keep beside the log for when there is none; 0 for none.

    Raises:
        LogUnavailable: it cannot be opened (no privilege, no space, read-only, missing).
        LogDamaged: it is no log of byre, its last event is not what was written, or events that
            were acknowledged are missing. Nothing was changed.
        RefusedError: its schema is newer than this program.
    """

    def __init__(
        self,
        path: Path,
        *,
        boot_id: str = "",
        read_only: bool = False,
        lenient: bool = False,
        clock_ns: Callable[[], int] = time.time_ns,
        reserve_bytes: int = 0,
    ) -> None:
        assert read_only or not lenient, "a damaged log is for reading only"
        self.path = path
        self.boot_id = boot_id
        self.commits = 0
        """How many commits this object made; for benchmarks and tests."""
        self.admit: Admit | None = None
        """Is asked about each request before it is stored, and may refuse it."""
        self.on_commit: Callable[[Commit], None] = lambda _commit: None
        """Called after each commit of this object, before `append` returns; must be quick."""
        self._clock_ns = clock_ns
        self.head = head_of(path)
        """Where the newest event is noted, to see whether the end is still there."""
        self._read_lock = threading.Lock()
        self._turns = Turns()
        self._checkpoint_lock = threading.Lock()
        self._checkpoint_due = 0
        """From which seq on it is worth a look whether a checkpoint is due."""
        self._newest = 0
        """The newest event of our own; others' are seen when a checkpoint is looked for."""
        self._newest_row: Row = ()
        """The newest event of our own, as it was written: it needs no other proof."""
        self._known: dict[str, Record | None] = {}
        """Records as they were after it, of the disks that were written last."""
        self._writer: Writer | None = None
        noted = self.head.read()
        # Apart from the writer: what is not committed yet must not be read. And before it: a
        # writer that is closed copies the WAL into the file, and nobody knows yet whose WAL it is.
        self._reader = database.open_log(path, read_only=True, lenient=lenient)
        try:
            if not lenient:
                with database.told_apart(path):
                    check_end(self._reader, path, noted)
            if not read_only:
                self._writer = Writer(path, reserve_bytes=reserve_bytes)
                self._reader.close()  # the one of before the file was made
                self._reader = database.open_log(path, read_only=True)
            self.root_id = self._root_id(lenient=lenient)
        except BaseException:
            self.close()
            raise

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
            LogUnavailable: the file cannot be written now; nothing was appended. When the disk
                itself failed, a power cut may still bring the events back, all or none.
            LogDamaged: the end is not what was written, or the file is another one by now;
                nothing was appended.
        """
        return self.commit(events).stored

    def advance(self, events: Sequence[NewEvent]) -> Record | None:
        """Append events of one disk, as `append` does, and return its record after the last."""
        return self.commit(events).record

    def commit(self, events: Sequence[NewEvent]) -> Request:
        """Do what `append` does, and return all that became of the events."""
        request = Request(events)
        self._turns.settle(request, self._commit)
        self.checkpoint_when_due()
        if request.error is not None:
            raise request.error
        return request

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work of the log's own upkeep in one transaction, with nobody else in between.

        Raises:
            LogUnavailable, LogDamaged: see `append`.
        """
        with self._turns.alone():
            return self._writable().transact(work)

    def outside_of_transactions(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Do what SQLite does in no transaction of ours (VACUUM), with no thread in between."""
        with self._turns.alone():
            self._writable().alone(work)

    def now_ns(self) -> int:
        """Return the time that an event would get now."""
        return self._clock_ns()

    def checkpoint(self, *, after_events: int = 1) -> bool:
        """Write a checkpoint of the newest event; False if there is one, or no room for it.

        Made of what one reader sees, so that nobody who appends waits for more than the row.

        Args:
            after_events: how many there must be since the last one.
        """
        last = self.at_one_moment(checkpoints.newest)
        if self.last_seq() - (last.seq if last else 0) < after_events:
            return False
        with self.frozen() as connection:
            made = checkpoints.draft(connection)
        if made is None:
            return False
        self._checkpoint_due = made.next_due

        def write(connection: sqlite3.Connection) -> bool:
            return checkpoints.write(connection, made)

        try:
            with self._turns.alone():
                return self._writable().transact(write, may_use_reserve=False)
        except LogUnavailable:
            return False  # it is made of the events, and another one will be due

    def checkpoint_when_due(self, *, newest: int = 0) -> None:
        """Write a checkpoint if enough was appended since the last one; one thread at a time.

        Args:
            newest: the seq of an event that was brought in by `transact`.
        """
        self._newest = max(newest, self._newest)
        if self._newest < self._checkpoint_due or not self._checkpoint_lock.acquire(blocking=False):
            return
        try:
            last = self.at_one_moment(checkpoints.newest)
            self._checkpoint_due = last.next_due if last else checkpoints.EVENTS_BETWEEN
            if self._newest >= self._checkpoint_due:
                self.checkpoint()
        finally:
            self._checkpoint_lock.release()

    def _writable(self) -> Writer:
        assert self._writer is not None, "the log was opened for questions only"
        return self._writer

    def _commit(self, group: Sequence[Request]) -> None:
        """Commit some requests in one transaction; one thread at a time."""

        def write(connection: sqlite3.Connection) -> tuple[Batch, int, list[Record]]:
            known, self._known = self._known, {}  # of no use once a transaction has failed
            proven = self._newest_row
            batch = Batch(
                connection, self.boot_id, self._clock_ns(), known, proven=proven, admit=self.admit
            )
            before, _ = batch.head
            for request in group:
                batch.place(request)
            return batch, before, batch.write()

        commit = None
        try:
            batch, before, moved = self._writable().transact(write)
            self._newest_row = batch.newest
            self._known = batch.records if len(batch.records) <= KNOWN_MAX else {}
            commit = Commit(moved, before, Noted(*batch.head), batch.was_asked)
            self._newest = commit.head.seq
            self.head.note(commit.head)
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
        if commit is not None:
            self.on_commit(commit)

    # --- reading -----------------------------------------------------------------------------

    def record(self, name: str) -> Record | None:
        """Return one disk's record, None if the log never spoke of it."""
        rows = self._read(SELECT_RECORD, name)
        return known_record(rows[0][0]) if rows else None

    def records(self) -> list[Record]:
        """Return all records by name, removed ones too."""
        return [read_record(row[0]) for row in self._read("SELECT record FROM disks ORDER BY name")]

    def in_use(self) -> list[Record]:
        """Return the records by name but for the disks that are removed, and wanted so."""
        rows = self._read(_RECORDS_IN_USE)
        return [read_record(row[0]) for row in rows]

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

    def bases(self) -> dict[str, Base]:
        """Return the registered bases, by name."""
        with database.told_apart(self.path), self._read_lock:
            return basetable.read(self._reader)

    def record_with_device(self, device_name: str) -> Record | None:
        """Return the record of a disk whose dm device has this name; reads all of them."""
        query = "SELECT record FROM disks WHERE json_extract(record, '$.device_name') = ? LIMIT 1"
        rows = self._read(query, device_name)
        return read_record(rows[0][0]) if rows else None

    def begins_after(self) -> Noted:
        """Return the event before the first one: the last in an archive; seq 0 if none is."""
        return self.at_one_moment(checkpoints.begin)

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

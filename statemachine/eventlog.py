"""The event log: one SQLite file that is the truth and the bus.

`append` is the only way in. It gives events their place, chains their hashes, moves the
projection, and returns when all of that is on disk. Several threads are committed as a group:
whoever comes first commits for all who wait. Several processes may append at once; the write lock
of SQLite orders them, and (generation, version) tells who decided on an old record.

What it does not do: no kernel call, no waiting for anything but the write lock (bounded), no
opinion about what a disk should become. Who only asks opens a `LogReader`. May be imported by
what stands above it in `statemachine` and by `reconciler`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from statemachine import basetable, checkpoints, database
from statemachine.admission import Admit
from statemachine.basefacts import Base
from statemachine.batch import Batch, Request
from statemachine.commits import Commit
from statemachine.errors import LogUnavailable
from statemachine.events import Event, NewEvent
from statemachine.head import Noted
from statemachine.logreader import LogReader, Row
from statemachine.record import Record
from statemachine.turns import Turns
from statemachine.writer import Writer

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")

KNOWN_MAX: Final = 256
"""How many records are kept for the next commit: of those that are worked on at one time."""


class EventLog(LogReader):
    """An open log that can be appended to. Safe for several threads; close it when done.

    Args:
        path: the database file; made, with its folder, unless `read_only`.
        boot_id: this boot, recorded with each event.
        read_only: for questions only, for who decides at run time; else open a `LogReader`.
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
        clock_ns: Callable[[], int] = time.time_ns,
        reserve_bytes: int = 0,
    ) -> None:
        self.boot_id = boot_id
        self.commits = 0
        """How many commits this object made; for benchmarks and tests."""
        self.admit: Admit | None = None
        """Is asked about each request before it is stored, and may refuse it."""
        self.on_commit: Callable[[Commit], None] = lambda _commit: None
        """Called after each commit of this object, before `append` returns; must be quick."""
        self._clock_ns = clock_ns
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
        # Before the writer: one that is closed copies the WAL into the file, and nobody knows yet
        # whose WAL it is.
        super().__init__(path)
        if not read_only:
            self._begin_writing(reserve_bytes)

    def _begin_writing(self, reserve_bytes: int) -> None:
        try:
            self._writer = Writer(self.path, reserve_bytes=reserve_bytes)
            self._reader.close()  # the one of before the file was made
            # Apart from the writer: what is not committed yet must not be read.
            self._reader = database.open_log(self.path, read_only=True)
            self.root_id = self._root_id(lenient=False)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; idempotent."""
        super().close()
        if self._writer is not None:
            self._writer.close()

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
            now_ns, proven = self._clock_ns(), self._newest_row
            batch = Batch(
                connection, self.boot_id, now_ns, self._known, proven=proven, admit=self.admit
            )
            before, _ = batch.head
            for request in group:
                batch.place(request)
            return batch, before, batch.write()

        commit = None
        try:
            batch, before, moved = self._writable().transact(write)
            self._newest_row = batch.newest
            if not batch.follows or len(self._known) > KNOWN_MAX:
                self._known = {}
            self._known |= batch.records
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

    def bases(self) -> dict[str, Base]:
        """Return the registered bases, by name."""
        with database.told_apart(self.path), self._read_lock:
            return basetable.read(self._reader)

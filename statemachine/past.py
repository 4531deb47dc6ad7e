"""The past of a log with its archives: one history, whichever file a moment is in.

Reads only. May be imported by `reconciler`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from statemachine import timetravel
from statemachine.archive import Archive
from statemachine.errors import UsageError
from statemachine.events import Event
from statemachine.logreader import LogReader
from statemachine.questions import Question
from statemachine.record import Record
from statemachine.search import search


class Past:
    """A log and some of its archives, open. Close it, or use it as a context manager.

    Args:
        log: an open log; it stays open.
        archives: files of `byre log archive`, in any order.

    Raises:
        UsageError: an archive is of another log, or is none of those that this one has let go.
        LogDamaged: one is not what was written.
    """

    def __init__(self, log: LogReader, archives: Sequence[Path] = ()) -> None:
        self._log = log
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(Archive(path)) for path in archives]
            for each in opened:
                self._refuse_foreign(each)
            self._stack = stack.pop_all()
        self.archives = sorted(opened, key=lambda each: each.span.first_seq)
        """The oldest first."""

    def close(self) -> None:
        """Close the archives; idempotent."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def search(self, question: Question) -> Iterator[Event]:
        """Yield the events that fit a question, of the archives and of the log, in its order.

        Raises:
            UsageError: the archives leave a gap to one another or to the log.
        """
        self._refuse_gaps()
        return search(self._log, question, archives=self.archives)

    def left_out(self, question: Question) -> int:
        """Return the last event of the archives that nobody named and that may fit; 0 for none."""
        begin = self._log.begins_after().seq
        if self.archives or question.after >= begin:
            return 0
        is_later = question.since is not None and question.since > self._last_archived_at()
        return 0 if is_later else begin

    def seq_at(self, at: int) -> int:
        """Return the seq of the last event of a time or earlier; see `timetravel.seq_at`."""
        begin = self._log.begins_after().seq
        found = timetravel.seq_at(self._log, at)
        if found > begin or not begin or self._last_archived_at() <= at:
            return found
        if not self.archives:
            msg = f"the log begins after event {begin}, which was later than that"
            raise UsageError(
                msg, hint="name its archives with --archive; `byre log info` lists them"
            )
        for each in reversed(self.archives):
            if (seq := each.seq_at(at)) is not None:
                return seq
        return self.archives[0].span.first_seq - 1 if self.archives else begin

    def moment(self, seq: int, *, everything: bool = False) -> list[Record]:
        """Return the disks as they were after an event; see `timetravel.moment`."""
        if seq == 0 and self.archives and self.archives[0].span.first_seq == 1:
            return []
        found = self._archive_of(seq)
        if found is None:
            return timetravel.moment(self._log, seq, everything=everything).records
        return found.moment(seq, everything=everything).records

    def disk_at(self, name: str, seq: int) -> Record | None:
        """Return what one disk was after an event, None if it was not known."""
        if self._archive_of(seq) is None:
            return timetravel.disk_at(self._log, name, seq)
        records = self.moment(seq, everything=True)
        return next((record for record in records if record.name == name), None)

    def _last_archived_at(self) -> int:
        query = "SELECT last_at FROM archives ORDER BY last_seq DESC LIMIT 1"
        row = self._log.at_one_moment(lambda connection: connection.execute(query).fetchone())
        return int(row[0])

    def _archive_of(self, seq: int) -> Archive | None:
        for each in self.archives:
            # Before its first event is only what the archive before has, if there is one.
            if max(each.span.first_seq, 1) <= seq <= each.span.last_seq:
                return each
        return None

    def _refuse_foreign(self, each: Archive) -> None:
        begin = self._log.begins_after().seq
        if each.root_id != self._log.root_id:
            msg = f"{each.path} is an archive of root {each.root_id}, not of {self._log.root_id}"
            raise UsageError(msg, hint="name the archives of this root's log")
        if each.span.last_seq > begin:
            msg = f"{each.path} ends with event {each.span.last_seq}; the log begins after {begin}"
            raise UsageError(msg, hint="it was made by an attempt that came to nothing; delete it")
        span = each.span
        query = "SELECT first_seq, prev_hash, last_hash FROM archives WHERE last_seq = ?"
        if self._log.rows(query, span.last_seq) != [
            (span.first_seq, span.prev_hash, span.last_hash)
        ]:
            msg = (
                f"{each.path} has the events {span.first_seq} to {span.last_seq}, "
                f"but not those that the log {self._log.path} let go"
            )
            raise UsageError(msg, hint=_LIST)

    def _refuse_gaps(self) -> None:
        """Refuse archives that do not join: what is missing between them would be missed."""
        begins = [each.span.first_seq for each in self.archives] + [
            self._log.begins_after().seq + 1
        ]
        paths = [each.path for each in self.archives] + [self._log.path]
        for place, each in enumerate(self.archives):
            following, end = begins[place + 1], each.span.last_seq
            if following == end + 1:
                continue
            then = f"{each.path} ends with event {end}, {paths[place + 1]} begins with {following}"
            if following <= end:
                raise UsageError(
                    f"{then}: these are the same events", hint="name each archive once"
                )
            msg = f"{then}: the events {end + 1} to {following - 1} are in no file that was named"
            raise UsageError(msg, hint=_LIST)


_LIST: Final = "`byre log info` lists the archives of the log"

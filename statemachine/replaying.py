"""Replaying a log: from its beginning or from a checkpoint, to its end or to an earlier moment.

A replay makes the records again from nothing but events, checks the chain on the way, and says
where the records and the checkpoints differ from what it made. Archives of the same log make it
begin with event 1 again. It changes nothing; `into` writes a log of its own.

Reads one moment of the log, whoever appends meanwhile, in bounded memory. May be imported by
`reconciler`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from statemachine import checkpoints, history, logends, newlog, timetravel
from statemachine.archive import Archive
from statemachine.checkpoints import Checkpoint
from statemachine.errors import UsageError
from statemachine.events import GENESIS, Event, is_known
from statemachine.head import Noted
from statemachine.history import Difference
from statemachine.logreader import LogReader
from statemachine.proof import followed
from statemachine.record import Record, to_text
from statemachine.roster import Roster

if TYPE_CHECKING:
    import sqlite3


@attrs.frozen(kw_only=True)
class Replayed:
    """What came out. `seq` and `hash` are the event it went up to."""

    since: int
    """The event it began after; 0 for the beginning."""
    seq: int
    hash: str
    events: int
    disks: int
    checkpoints: int
    """How many were compared."""
    unknown: tuple[tuple[str, int], ...]
    """Types that this program does not know, or not in that version, and how many of each."""
    differences: tuple[Difference, ...]
    records: tuple[Record, ...]
    """Of the disks that are not removed; empty unless it ended at an earlier moment."""


def replay(
    log: LogReader,
    *,
    from_checkpoint: bool = False,
    until: int | None = None,
    archives: Sequence[Archive] = (),
    with_checkpoints: bool = False,
) -> Replayed:
    """Make the records again, and compare.

    Args:
        log: an open log.
        from_checkpoint: begin with the newest checkpoint before the end, and not with nothing.
        until: the seq to end at; by default the newest event, and then the records are compared.
        archives: of this log, the oldest first; the last one ends where the log begins.
        with_checkpoints: compare every checkpoint on the way as well.

    Raises:
        UsageError: there is no such event, or an archive is not one of those before it.
        LogDamaged: the chain is broken, or an event does not fit those before it.
    """
    with log.frozen() as connection:
        begin, before = _beginning(connection, archives)
        newest = timetravel.newest_seq(connection)
        end = newest if until is None else until
        if not begin.seq <= end <= newest:
            msg = f"there is no event {end} here: there are {begin.seq + 1} to {newest}"
            raise UsageError(msg, hint="older ones are in archives, which `byre log info` names")
        start = _start(connection, begin, end, from_checkpoint=from_checkpoint)
        since = Noted(start.seq, start.hash) if start else begin
        told = _Told(followed(_events(connection, before, since.seq, end), since))
        differences: list[Difference] = []
        compared = 0
        with Roster() as roster:
            timetravel.load(connection, roster, start, everything=True)
            for each in _on_the_way(connection, since.seq, end) if with_checkpoints else ():
                roster.replay(told.up_to(each.seq))
                differences += _differences(each, roster)
                compared += 1
            roster.replay(told.up_to(end))
            if until is None:
                recorded = connection.execute("SELECT name, record FROM disks ORDER BY name")
                differences += history.differences(recorded, roster.texts())
                differences += history.base_differences(connection)
            last = told.last or since
            living = (roster.living[name] for name in sorted(roster.living))
            return Replayed(
                since=since.seq,
                seq=last.seq,
                hash=last.hash,
                events=last.seq - since.seq,
                disks=roster.count(),
                checkpoints=compared,
                unknown=tuple(sorted(told.unknown.items())),
                differences=tuple(differences),
                records=() if until is None else tuple(living),
            )


class _Told:
    """The events, in one go through all pieces; knows the last one and those nobody understands."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._waiting: Event | None = None
        self.last: Noted | None = None
        self.unknown: dict[str, int] = {}

    def up_to(self, seq: int) -> Iterator[Event]:
        """Yield what is left up to an event."""
        while (event := self._waiting or next(self._events, None)) is not None:
            if event.seq > seq:
                self._waiting = event
                return
            self._waiting = None
            if not is_known(event):
                self.unknown[event.type] = self.unknown.get(event.type, 0) + 1
            yield event
            self.last = Noted(event.seq, event.hash)


def _beginning(
    connection: sqlite3.Connection, archives: Sequence[Archive]
) -> tuple[Noted, Sequence[Archive]]:
    """Return the event to begin after, with those archives that lead to the log's beginning."""
    log_begin = logends.begin(connection)
    if not archives:
        return log_begin, ()
    end: tuple[int, str] | None = None
    for each in archives:
        span = each.span
        if end is not None and end != (span.first_seq - 1, span.prev_hash):
            msg = f"{each.path} begins after event {span.first_seq - 1}, and not after {end[0]}"
            raise UsageError(
                msg, hint="name the archives of one log, the oldest first, all of them"
            )
        end = (span.last_seq, span.last_hash)
    if end != (log_begin.seq, log_begin.hash):
        ours, theirs = log_begin.seq, end[0] if end else 0
        msg = f"{archives[-1].path} ends with event {theirs}; the log begins after {ours}"
        raise UsageError(msg, hint="`byre log info` names the archives of a log")
    first = archives[0].span
    return Noted(first.first_seq - 1, first.prev_hash), archives


def _start(
    connection: sqlite3.Connection, begin: Noted, end: int, *, from_checkpoint: bool
) -> Checkpoint | None:
    """Return the checkpoint to begin with, checked; None for nothing at all."""
    if from_checkpoint:
        # Not the one that stands on the last event: there would be nothing to replay.
        found = checkpoints.newest(connection, up_to=end - 1)
        if found is not None:
            found.check()
            return found
    if begin == Noted(0, GENESIS):
        return None
    return timetravel.first_start(connection)


def _events(
    connection: sqlite3.Connection, archives: Sequence[Archive], since: int, end: int
) -> Iterator[Event]:
    for each in archives:
        yield from each.events(after=since, until=end)
    begin = logends.begin(connection).seq
    yield from timetravel.events_between(connection, max(since, begin), end)


def _on_the_way(connection: sqlite3.Connection, since: int, end: int) -> Iterator[Checkpoint]:
    while (each := checkpoints.first_after(connection, after=since)) is not None:
        if each.seq > end:
            return
        each.check()
        yield each
        since = each.seq


def _differences(each: Checkpoint, roster: Roster) -> Iterator[Difference]:
    """Yield where a checkpoint differs from a roster of the same moment."""
    kept = ((record.name, to_text(record)) for record in each.records())
    made = ((name, to_text(roster.living[name])) for name in sorted(roster.living))
    for found in history.differences(kept, made):
        yield attrs.evolve(found, where=f"checkpoint {each.seq}")
    for record in each.removed_records():
        ours = roster.get(record.name)
        if ours is None:
            yield Difference(
                disk=record.name,
                field="record",
                recorded="one",
                replayed="none",
                where=f"checkpoint {each.seq}",
            )
        elif ours.seq == record.seq and ours != record:
            for found in history.fields_that_differ(record, ours):
                yield attrs.evolve(found, where=f"checkpoint {each.seq}")


def replay_into(
    log: LogReader, target: Path, *, until: int | None = None, archives: Sequence[Archive] = ()
) -> Replayed:
    """Replay into a new log: the events as they are up to a moment, and the records made of them.

    Raises:
        RefusedError: there is something in the target's place, or a log beside it.
        UsageError, LogDamaged: see `replay`.
        LogUnavailable: the target cannot be written.
    """
    newlog.refuse_taken(target, "a replay is")
    done = replay(log, until=until, archives=archives)
    with log.frozen() as connection:
        begin, before = _beginning(connection, archives)
        first = newlog.beginning(connection) if begin.seq and not before else newlog.Beginning()
        events = _events(connection, before, begin.seq, done.seq)
        newlog.write(target, root_id=log.root_id, begin=first, events=events)
    return done

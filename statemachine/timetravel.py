"""What all disks were after an event, or at a time: from the newest checkpoint before it.

Clocks go back, so a time is a place in the log by one rule: the last event that was recorded at
that time or earlier; all before it had happened then. Reads only. May be imported by history and
what stands above it in `statemachine`, and by `reconciler`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Self

import attrs

from statemachine import checkpoints, logends
from statemachine.checkpoints import Checkpoint
from statemachine.errors import LogDamaged, UsageError
from statemachine.events import Event
from statemachine.logreader import PAGE_EVENTS, LogReader
from statemachine.record import Record
from statemachine.roster import Roster
from statemachine.schema import SELECT_EVENTS

if TYPE_CHECKING:
    import sqlite3

_NO_END: Final = (1 << 63) - 1
_LATEST: Final = "SELECT max(seq) FROM events WHERE seq > ? AND seq <= ? AND at <= ?"


@attrs.frozen(kw_only=True)
class Moment:
    """The disks as they were after one event; `seq` 0 is before the first one."""

    seq: int
    records: list[Record]

    @classmethod
    def of(cls, seq: int, roster: Roster, *, everything: bool) -> Self:
        """Return what a roster has, with or without what `LogReader.in_use` leaves out."""
        if everything:
            return cls(seq=seq, records=list(roster.records()))
        return cls(seq=seq, records=roster.in_use())


def seq_at(log: LogReader, at: int) -> int:
    """Return the seq of the last event that was recorded at a time or earlier.

    Args:
        log: an open log.
        at: UTC in ns.

    Returns:
        The seq; that of the event before the log's first one if all were recorded later.
    """
    return log.at_one_moment(lambda connection: _seq_at(connection, at))


def _seq_at(connection: sqlite3.Connection, at: int) -> int:
    """Look from the end, checkpoint by checkpoint: each tells the earliest time of its events."""
    begin = logends.begin(connection).seq
    until = connection.execute("SELECT max(seq) FROM events").fetchone()[0] or begin
    has = checkpoints.exist(connection)
    newest = connection.execute("SELECT max(seq) FROM checkpoints").fetchone()[0] if has else None
    since = max(newest or 0, begin)
    while True:
        found = connection.execute(_LATEST, (since, until, at)).fetchone()[0]
        if found is not None:
            return int(found)
        if since <= begin:
            return begin
        query = (
            "SELECT seq FROM checkpoints WHERE seq <= ? AND seq > ? AND earliest <= ? "
            "ORDER BY seq DESC LIMIT 1"
        )
        row = connection.execute(query, (since, begin, at)).fetchone()
        if row is None:
            return begin
        until = int(row[0])
        before = connection.execute("SELECT max(seq) FROM checkpoints WHERE seq < ?", (until,))
        since = max(before.fetchone()[0] or 0, begin)


def moment(log: LogReader, seq: int, *, everything: bool = False) -> Moment:
    """Return the disks as they were after an event.

    Args:
        log: an open log.
        seq: which event; 0 for before the first one.
        everything: those that were removed by then as well.

    Raises:
        UsageError: there is no such event: it is yet to come, or it is in an archive.
        LogDamaged: a checkpoint or an event is not what was written.
    """
    with log.frozen() as connection, roster_at(connection, seq, everything=everything) as roster:
        return Moment.of(seq, roster, everything=everything)


def disk_at(log: LogReader, name: str, seq: int) -> Record | None:
    """Return what one disk was after an event, removed or not; None if it was not known.

    Raises:
        UsageError, LogDamaged: see `moment`.
    """
    with log.frozen() as connection:
        start = _checked_start(connection, seq)
        since = start.seq if start else 0
        before = next((r for r in start.records() if r.name == name), None) if start else None
        if before is None:
            before = _removed_before(connection, name, since)
        query = f"{SELECT_EVENTS} WHERE disk = ? AND seq > ? AND seq <= ? ORDER BY seq"
        rows = connection.execute(query, (name, since, seq))
        with Roster([before] if before else []) as roster:
            roster.replay(Event(*row) for row in rows)
            return roster.get(name)


def _removed_before(connection: sqlite3.Connection, name: str, since: int) -> Record | None:
    """Return the record of a disk that a checkpoint has not among the living."""
    query = "SELECT max(seq) FROM events WHERE disk = ? AND seq <= ? AND generation > 0"
    last = connection.execute(query, (name, since)).fetchone()[0]
    # With no event left its record is in the checkpoint that the log begins with.
    where = last if last is not None else logends.begin(connection).seq
    if not where:
        return None
    found = checkpoints.first_after(connection, after=where - 1)
    if found is None or found.seq > since:
        return None
    return next((r for r in found.removed_records() if r.name == name), None)


def roster_at(connection: sqlite3.Connection, seq: int, *, everything: bool = True) -> Roster:
    """Return all records after an event, on a connection that sees one moment.

    Raises:
        UsageError, LogDamaged: see `moment`.
    """
    return roster_from(
        connection,
        _checked_start(connection, seq),
        lambda since: events_between(connection, since, seq),
        everything=everything,
    )


def roster_from(
    connection: sqlite3.Connection,
    start: Checkpoint | None,
    events: Callable[[int], Iterator[Event]],
    *,
    everything: bool,
) -> Roster:
    """Return all records after some events.

    Args:
        connection: where the checkpoints are.
        start: the one to begin with, checked; None for nothing.
        events: gives those after a seq.
        everything: the removed disks as well.
    """
    since = start.seq if start else 0
    roster = Roster(removed=lambda name: _removed_before(connection, name, since))
    try:
        load(connection, roster, start, everything=everything)
        roster.replay(events(since))
    except BaseException:
        roster.close()
        raise
    return roster


def load(
    connection: sqlite3.Connection, roster: Roster, start: Checkpoint | None, *, everything: bool
) -> None:
    """Fill a roster with what a checkpoint says; None for the log's first moment."""
    if start is None:
        return
    if everything:
        after = -1
        while (each := checkpoints.first_after(connection, after=after)) is not None:
            if each.seq > start.seq:
                break
            each.check()
            for record in each.removed_records():
                roster.put(record)
            after = each.seq
    else:
        for record in start.removed_but_wanted():
            roster.put(record)
    for record in start.records():
        roster.put(record)


def first_start(connection: sqlite3.Connection) -> Checkpoint | None:
    """Return the checkpoint that a log begins with, checked; None if it begins with nothing.

    Raises:
        LogDamaged: it is missing, or not what was written.
    """
    return _checked_start(connection, logends.begin(connection).seq)


def newest_seq(connection: sqlite3.Connection) -> int:
    """Return the seq of the newest event, in an archive if need be; 0 if there is none."""
    newest = connection.execute("SELECT max(seq) FROM events").fetchone()[0]
    return int(newest or logends.begin(connection).seq)


def events_between(
    connection: sqlite3.Connection, since: int, until: int = _NO_END
) -> Iterator[Event]:
    """Yield the events after one up to another one, in bounded memory."""
    query = f"{SELECT_EVENTS} WHERE seq > ? AND seq <= ? ORDER BY seq"
    rows = connection.execute(query, (since, until))
    while page := rows.fetchmany(PAGE_EVENTS):
        yield from itertools.starmap(Event, page)


def _checked_start(connection: sqlite3.Connection, seq: int) -> Checkpoint | None:
    """Return the checkpoint that leads to an event, checked; None to begin with nothing."""
    begin = logends.begin(connection).seq
    newest = newest_seq(connection)
    if not begin <= seq <= newest:
        where = f"the log has events {begin + 1} to {newest}" if newest else "the log is empty"
        gone = f"; events 1 to {begin} are in an archive: `--archive FILE`" if begin else ""
        msg = f"there is no event {seq}: {where}{gone}"
        raise UsageError(msg)
    start = checkpoints.newest(connection, up_to=seq)
    if start is None:
        if begin:
            msg = f"the checkpoint at event {begin}, with which the log begins, is missing"
            raise LogDamaged(msg, seq=begin, hint="restore a copy of the log")
        return None
    start.check()
    return start

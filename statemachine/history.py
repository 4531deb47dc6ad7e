"""Questions to the log: what happened, and is it what was written?

Reads only. May be imported by `reconciler`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import attrs

from statemachine import basetable, checkpoints, logends, timetravel
from statemachine.checkpoints import Checkpoint
from statemachine.diskrows import read_record
from statemachine.errors import LogDamaged
from statemachine.events import Event, EventType, check_hash
from statemachine.head import Noted
from statemachine.logreader import PAGE_EVENTS, LogReader
from statemachine.proof import Verification, verify
from statemachine.questions import Question, as_json
from statemachine.record import Record
from statemachine.roster import Roster
from statemachine.schema import IS_RARE
from statemachine.search import search
from statemachine.utc import iso

if TYPE_CHECKING:
    import sqlite3

__all__ = [
    "PAGE_MAX",
    "Difference",
    "Question",
    "Verification",
    "as_json",
    "ask",
    "check_records",
    "compare",
    "iso",
    "newest_of",
    "prove",
    "search",
    "verify",
]

PAGE_MAX: Final = 100_000
"""The most events that `ask` returns."""


def ask(log: LogReader, question: Question, *, limit: int = PAGE_MAX) -> list[Event]:
    """Return events that fit a question, in its order.

    Args:
        log: an open log.
        question: which ones.
        limit: how many at the most, 1 to `PAGE_MAX`; the first ones are returned. `search` gives
            all of them, however many there are.
    """
    bound = max(1, min(limit, PAGE_MAX))
    return list(itertools.islice(search(log, question, page=min(bound, PAGE_EVENTS)), bound))


@attrs.frozen(kw_only=True)
class Difference:
    """One field of one record that the events do not give."""

    disk: str
    field: str
    recorded: object
    replayed: object
    where: str = ""
    """Which checkpoint says so; "" for the record."""

    def __str__(self) -> str:
        """Print in one line, for people."""
        where = f"{self.where}: " if self.where else ""
        told = f"recorded {self.recorded}, replayed {self.replayed}"
        return f"{where}{self.disk}: {self.field}: {told}"


def compare(log: LogReader) -> Iterator[Difference]:
    """Rebuild all records from the events alone and yield where the projection differs.

    Others may append meanwhile: what is compared is the log as it was when this began. The memory
    it takes is that of the disks that are not removed.

    Raises:
        LogDamaged: the events themselves do not fit together.
    """
    with log.frozen() as connection, Roster() as roster:
        timetravel.load(connection, roster, timetravel.first_start(connection), everything=True)
        roster.replay(timetravel.events_between(connection, logends.begin(connection).seq))
        recorded = connection.execute("SELECT name, record FROM disks ORDER BY name")
        yield from differences(recorded, roster.texts())
        yield from base_differences(connection)


def base_differences(connection: sqlite3.Connection) -> Iterator[Difference]:
    """Yield where the table of the registered bases is not what the events say."""
    for name, recorded, replayed in basetable.differences(connection):
        yield Difference(disk=f"base {name}", field="record", recorded=recorded, replayed=replayed)


def differences(
    recorded: Iterator[tuple[str, str]], replayed: Iterator[tuple[str, str]]
) -> Iterator[Difference]:
    """Yield where two lots of (name, record as text), each by name, differ.

    Raises:
        LogDamaged: a recorded text is no record.
    """
    ours, theirs = next(recorded, None), next(replayed, None)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and ours[0] < theirs[0]):
            assert ours is not None, "one of both is there"
            yield Difference(disk=ours[0], field="record", recorded="one", replayed="none")
            ours = next(recorded, None)
        elif ours is None or theirs[0] < ours[0]:
            yield Difference(disk=theirs[0], field="record", recorded="none", replayed="one")
            theirs = next(replayed, None)
        else:
            if ours[1] != theirs[1]:
                yield from fields_that_differ(read_record(ours[1]), read_record(theirs[1]))
            ours, theirs = next(recorded, None), next(replayed, None)


def fields_that_differ(ours: Record, theirs: Record) -> Iterator[Difference]:
    """Yield where two records of one disk differ, field by field."""
    for field in attrs.fields_dict(Record):
        recorded, replayed = getattr(ours, field), getattr(theirs, field)
        if recorded != replayed:
            yield Difference(disk=theirs.name, field=field, recorded=recorded, replayed=replayed)


def prove(log: LogReader) -> None:
    """Check all that a reconciler relies on: the newest checkpoint, what followed, the records.

    What is older is bound to that checkpoint, and `verify` and `compare` read it; a start that did
    would take the longer the more has happened.

    Raises:
        LogDamaged: with what is wrong, and the way out.
    """
    with log.frozen() as connection:
        start = checkpoints.newest(connection)
    if start is None:
        verify(log)
        check_records(log)
        return
    start.check()
    verify(log, start=_stands(log, start))
    _insist(_compare_since(log, start))


def _stands(log: LogReader, start: Checkpoint) -> Noted:
    """Return the event that a checkpoint stands on; what is in an archive cannot be asked for."""
    noted = Noted(start.seq, start.hash)
    if noted == log.begins_after():
        return noted
    found = log.select("WHERE seq = ?", start.seq)
    if not found or found[0].hash != start.hash:
        msg = f"the checkpoint at event {start.seq} stands on another event than there is"
        raise LogDamaged(msg, seq=start.seq, hint=checkpoints.WAY_OUT)
    check_hash(found[0])
    return noted


def _compare_since(log: LogReader, start: Checkpoint) -> Iterator[Difference]:
    """Compare the records of the living, and of those that were removed since a checkpoint."""
    with log.frozen() as connection, Roster(start.records()) as roster:
        roster.replay(timetravel.events_between(connection, start.seq))
        recorded = connection.execute(
            "SELECT name, record FROM disks WHERE state <> 'removed' "
            "OR name IN (SELECT disk FROM events WHERE seq > ?) ORDER BY name",
            (start.seq,),
        )
        yield from differences(recorded, roster.texts())


def check_records(log: LogReader) -> None:
    """Check that every record is what the events say.

    Raises:
        LogDamaged: one is not.
    """
    _insist(compare(log))


def _insist(found: Iterator[Difference]) -> None:
    for difference in found:
        msg = f"a record is not what the events say: {difference}"
        raise LogDamaged(msg, hint="the events decide: `byre replay --repair`")


def last_boot(log: LogReader) -> str:
    """Return the boot of the newest `host.booted`, though it be in an archive; "" for none."""
    if known := newest_of(log, EventType.HOST_BOOTED):
        return known.boot_id
    moved = newest_of(log, EventType.LOG_ARCHIVED)
    return str(moved.data.get("booted", "")) if moved else ""


def newest_of(log: LogReader, rare: EventType) -> Event | None:
    """Return the newest event of a type that is none of the common ones."""
    found = log.select(f"WHERE type = ? AND {IS_RARE} ORDER BY seq DESC LIMIT 1", rare.value)
    return found[0] if found else None

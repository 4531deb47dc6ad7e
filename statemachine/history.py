"""Questions to the log: what happened, and is it what was written?

Reads only. May be imported by `reconciler`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from statemachine.errors import LogDamaged
from statemachine.eventlog import EventLog, check_hash, replay
from statemachine.events import GENESIS, Event, is_known
from statemachine.schema import EVENT_COLUMNS

PAGE_MAX: Final = 100_000
"""The most events that one question returns; more are read page by page with `after`."""


@attrs.frozen(kw_only=True)
class Question:
    """Which events are wanted; every part that is given must fit. Times are UTC in ns."""

    disk: str | None = None
    since: int | None = None
    until: int | None = None
    type: str | None = None
    """A whole type ("disk.declared") or its first word ("transition")."""
    actor: str | None = None
    after: int = 0
    """Only events with a larger seq."""


def ask(log: EventLog, question: Question, *, limit: int = PAGE_MAX) -> list[Event]:
    """Return events that fit a question, oldest first.

    Args:
        log: an open log.
        question: which ones.
        limit: how many at the most, 1 to `PAGE_MAX`; the oldest ones are returned.
    """
    where, values = ["seq > ?"], [question.after]
    clauses: tuple[tuple[str, object], ...] = (
        ("disk = ?", question.disk),
        ("at >= ?", question.since),
        ("at < ?", question.until),
        ("actor = ?", question.actor),
    )
    for clause, value in clauses:
        if value is not None:
            where.append(clause)
            values.append(value)  # type: ignore[arg-type]
    if question.type is not None:
        where.append("(type = ? OR substr(type, 1, ?) = ?)")
        word = f"{question.type}."
        values += [question.type, len(word), word]  # type: ignore[list-item]
    bound = max(1, min(limit, PAGE_MAX))
    return log.select(f"WHERE {' AND '.join(where)} ORDER BY seq LIMIT {bound}", *values)


def as_json(event: Event) -> dict[str, Any]:
    """Return an event with the columns of the log: `at` as ISO 8601 with nanoseconds."""
    columns = dict(zip(_COLUMNS, event.columns(), strict=True))
    columns["at"] = iso(event.at)
    columns["data"] = json.loads(event.data_text)
    return columns


_COLUMNS: Final = tuple(EVENT_COLUMNS)


def iso(at_ns: int) -> str:
    """Return UTC nanoseconds as "2026-11-21T08:00:00.123456789Z"."""
    seconds, nanoseconds = divmod(at_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


@attrs.frozen(kw_only=True)
class Verification:
    """What a check of the whole chain found. `seq` and `hash` are the head of what is intact."""

    events: int
    seq: int
    hash: str
    unknown: int
    """Events of a type or schema version that this program does not know; kept, not damaged."""


def verify(log: EventLog) -> Verification:
    """Check every event against its hash and its predecessor, in bounded memory.

    Raises:
        LogDamaged: with the seq of the first bad event and what is wrong with it.
    """
    seq, last_hash, count, unknown = 0, GENESIS, 0, 0
    for event in log.events(after=-1):
        _check_link(event, seq, last_hash)
        seq, last_hash, count = event.seq, event.hash, count + 1
        unknown += not is_known(event)
    return Verification(events=count, seq=seq, hash=last_hash, unknown=unknown)


def _check_link(event: Event, seq: int, last_hash: str) -> None:
    if event.seq != seq + 1:
        missing = f"{seq + 1}" if event.seq == seq + 2 else f"{seq + 1} to {event.seq - 1}"
        msg = f"event {missing} is missing: {seq} is followed by {event.seq}"
        raise LogDamaged(msg, seq=seq + 1, hint=_INTACT.format(seq))
    try:
        check_hash(event)
    except LogDamaged as error:
        msg = f"event {event.seq} was edited: its hash does not fit its columns"
        raise LogDamaged(msg, seq=event.seq, hint=_INTACT.format(seq)) from error
    if event.prev_hash != last_hash:
        msg = f"event {event.seq} does not follow event {seq}: one of them was put in its place"
        raise LogDamaged(msg, seq=event.seq, hint=_INTACT.format(seq))


_INTACT: Final = "events 1 to {} are intact; restore the rest from a copy of byre.db"


@attrs.frozen(kw_only=True)
class Difference:
    """One field of one record that the events do not give."""

    disk: str
    field: str
    recorded: object
    replayed: object

    def __str__(self) -> str:
        """Print in one line, for people."""
        return f"{self.disk}: {self.field}: recorded {self.recorded}, replayed {self.replayed}"


def compare(log: EventLog) -> Iterator[Difference]:
    """Rebuild all records from the events alone and yield where the projection differs.

    Raises:
        LogDamaged: the events themselves do not fit together.
    """
    recorded = {record.name: record for record in log.records()}
    replayed = replay(log.events())
    for name in sorted(recorded.keys() | replayed.keys()):
        ours, theirs = recorded.get(name), replayed.get(name)
        if ours is None or theirs is None:
            yield Difference(
                disk=name,
                field="record",
                recorded="none" if ours is None else "one",
                replayed="none" if theirs is None else "one",
            )
            continue
        for field in attrs.fields_dict(type(ours)):
            if getattr(ours, field) != getattr(theirs, field):
                yield Difference(
                    disk=name,
                    field=field,
                    recorded=getattr(ours, field),
                    replayed=getattr(theirs, field),
                )

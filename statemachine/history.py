"""Questions to the log: what happened, and is it what was written?

Reads only. May be imported by `reconciler`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from statemachine.batch import replay
from statemachine.errors import LogDamaged
from statemachine.eventlog import EventLog
from statemachine.events import Event
from statemachine.proof import Verification, verify
from statemachine.schema import EVENT_COLUMNS

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
    "prove",
    "verify",
]

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

    Others may append meanwhile: what is compared is the log as it was when this began.

    Raises:
        LogDamaged: the events themselves do not fit together.
    """
    newest, records = log.moment()
    recorded = {record.name: record for record in records}
    replayed = replay(itertools.takewhile(lambda event: event.seq <= newest, log.events()))
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


def prove(log: EventLog) -> None:
    """Check all that a reconciler relies on: every event, and every record made of them.

    Raises:
        LogDamaged: with what is wrong, and the way out.
    """
    verify(log)
    check_records(log)


def check_records(log: EventLog) -> None:
    """Check that every record is what the events say.

    Raises:
        LogDamaged: one is not.
    """
    for difference in compare(log):
        msg = f"a record is not what the events say: {difference}"
        raise LogDamaged(msg, hint="the events decide: `byre replay --repair`")

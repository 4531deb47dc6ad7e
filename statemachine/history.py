"""Questions to the log: what happened, and is it what was written?

Reads only. May be imported by `reconciler`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import attrs

from statemachine.batch import replay
from statemachine.errors import LogDamaged
from statemachine.eventlog import PAGE_EVENTS, EventLog
from statemachine.events import Event
from statemachine.proof import Verification, verify
from statemachine.questions import Question, as_json, iso
from statemachine.search import search

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
    "search",
    "verify",
]

PAGE_MAX: Final = 100_000
"""The most events that `ask` returns."""


def ask(log: EventLog, question: Question, *, limit: int = PAGE_MAX) -> list[Event]:
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

"""Bringing a whole story into a log: events with times and boots of their own, many at once.

For logs that are made and not lived, by benches and tests. The events get their places, hashes and
records as those that somebody appends do. May be imported by `reconciler.bench` and tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs

from statemachine.batch import Batch, Request
from statemachine.eventlog import EventLog
from statemachine.events import NewEvent
from statemachine.head import Noted

if TYPE_CHECKING:
    import sqlite3


@attrs.frozen
class Told:
    """The events of one moment: when it was, and in which boot."""

    at: int
    boot_id: str
    events: Sequence[NewEvent]


def append_story(log: EventLog, story: Iterable[Told]) -> int:
    """Append the moments of a story, all or none, in one transaction.

    Returns:
        How many events that were.

    Raises:
        What `EventLog.append` raises.
    """

    def write(connection: sqlite3.Connection) -> tuple[int, Noted]:
        batch, count = Batch(connection, log.boot_id, 0), 0
        for told in story:
            batch.boot_id, batch.now_ns = told.boot_id, told.at
            request = Request(told.events)
            batch.place(request)
            if request.error is not None:
                raise request.error
            count += len(request.stored)
        batch.write()
        return count, Noted(*batch.head)

    count, head = log.transact(write)
    log.head.note(head)
    log.checkpoint_when_due(newest=head.seq)
    return count

"""Bringing a whole story into a log: events with times and boots of their own, many at once.

For logs that are made and not lived, by benches and tests. The events get their places, hashes and
records as those that somebody appends do. May be imported by `reconciler.bench` and tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs

from statemachine import schema
from statemachine.batch import Batch
from statemachine.eventlog import EventLog
from statemachine.events import NewEvent
from statemachine.head import Noted
from statemachine.machine import State
from statemachine.record import Record

if TYPE_CHECKING:
    import sqlite3


@attrs.frozen
class Told:
    """The events of one moment: when it was, and in which boot."""

    at: int
    boot_id: str
    events: Sequence[NewEvent]


class Scribe:
    """Writes stories into a log that nobody else writes to meanwhile; their times never go back.

    It knows the records of the living disks from one transaction to the next, and does without the
    guards, which would look at each event once more.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._known: dict[str, Record | None] = {}
        self._last_at = 0

    def write(self, story: Iterable[Told]) -> int:
        """Write the moments of a story, all or none, in one transaction.

        Returns:
            How many events that were.

        Raises:
            What `EventLog.append` raises.
        """
        moments = list(story)  # as a transaction may be tried twice
        known, head = self._log.transact(lambda connection: self._write(connection, moments))
        self._known, self._last_at = known, moments[-1].at if moments else self._last_at
        self._log.head.note(head)
        self._log.checkpoint_when_due(newest=head.seq)
        return sum(len(told.events) for told in moments)

    def _write(
        self, connection: sqlite3.Connection, moments: Sequence[Told]
    ) -> tuple[dict[str, Record | None], Noted]:
        last, batch = self._last_at, Batch(connection, self._log.boot_id, 0, self._known)
        for told in moments:
            assert told.at >= last, "without the guards nothing notes that the clock was set back"
            batch.boot_id, batch.now_ns, last = told.boot_id, told.at, told.at
            batch.put(told.events)
        with schema.unguarded(connection):
            batch.write()
        living: dict[str, Record | None] = {
            name: record
            for name, record in {**self._known, **batch.records}.items()
            if record is not None and record.state is not State.REMOVED
        }
        return living, Noted(*batch.head)

"""Where disks stand: asked by who waits for them at each commit of the log, so in one short query.

A disk whose newest event is an intent is in the middle of a transition, whatever else its record
says; so a record is read only when there is something to judge.
May be imported by `reconciler`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from statemachine.diskrows import known_record
from statemachine.events import EventType
from statemachine.logreader import LogReader
from statemachine.record import Record

_OF_NAMES: Final = """
SELECT disks.name, disks.seq, events.type, disks.record
FROM disks LEFT JOIN events ON events.seq = disks.seq
WHERE disks.name IN (SELECT value FROM json_each(?))"""
# In this order of the tables: the few new events first, and each one's disk by its name.
_SINCE: Final = """
SELECT disks.name, disks.seq, events.type, disks.record
FROM events CROSS JOIN disks ON disks.name = events.disk AND disks.seq = events.seq
WHERE events.seq > ?"""


@attrs.frozen
class Standing:
    """One disk as the log had it at one moment."""

    name: str
    seq: int
    """Of its newest event."""
    type: str | None
    """Of its newest event; None if that is in an archive."""
    text: str = attrs.field(repr=False)

    @property
    def is_in_flight(self) -> bool:
        """Whether its newest event is an intent, whose outcome is yet to come."""
        return self.type == EventType.TRANSITION_STARTED

    @property
    def was_recovered(self) -> bool:
        """Whether its newest event is a person's word, and nobody has looked at it since."""
        return self.type == EventType.DISK_RECOVERED

    def read(self) -> Record:
        """Return its record; raises LogDamaged when it cannot be read."""
        return known_record(self.text)


def of(log: LogReader, names: Sequence[str]) -> list[Standing]:
    """Return where some disks stand, all at one moment; one that was never declared is left out."""
    return _standings(log.rows(_OF_NAMES, json.dumps(names)))


def since(log: LogReader, seq: int) -> list[Standing]:
    """Return where the disks stand that have events after one of the log, others left out."""
    return _standings(log.rows(_SINCE, seq))


def _standings(rows: Iterable[tuple[str, int, str | None, str]]) -> list[Standing]:
    return [Standing(*row) for row in rows]

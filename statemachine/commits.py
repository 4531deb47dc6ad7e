"""What a commit leaves, for those who are told of it, and what is new in a log, for those who ask.

Values only; may be imported by batch, logreader, eventlog and everything in `reconciler`.
"""

from __future__ import annotations

from typing import Final

import attrs

from statemachine.events import EventType
from statemachine.head import Noted
from statemachine.record import Record

ASKING: Final = frozenset({EventType.DISK_DECLARED.value, EventType.DISK_RECOVERED.value})
"""By these somebody asks for something; all others only say what a reconciler did."""


@attrs.frozen
class Change:
    """What is new of one disk."""

    disk: str
    seq: int
    """Of its newest event."""
    was_asked: bool
    """Whether one of its events is `ASKING`."""


@attrs.frozen
class Commit:
    """What one commit left."""

    moved: list[Record]
    """The records of the disks that it has events of."""
    before: int
    """The seq of the newest event before it, whoever wrote that."""
    head: Noted
    was_asked: bool
    """Whether one of its events is `ASKING`."""

"""Kept points of a disk, and going back to one: what events of it change of the record.

Pure; may be imported by projection.
"""

from __future__ import annotations

from typing import Any, Protocol

from statemachine.diskfacts import DiskCheckpointed, DiskDeclared, DiskPointsDropped
from statemachine.events import Event
from statemachine.lineage import Point


class Kept(Protocol):
    """What of a record this is about; see `record.Record`."""

    @property
    def points(self) -> tuple[Point, ...]:
        """Which points of it are kept, the oldest first."""


def told(payload: DiskDeclared) -> dict[str, Any]:
    """Return what a later declaration says of going back; a fault is over with a person's word."""
    if payload.rewind is not None:
        return {"rewind": payload.rewind, "fault": None}
    return {"rewind": None} if payload.without_rewind else {}


def checkpointed(record: Kept, _: Event, payload: DiskCheckpointed) -> dict[str, Any]:
    """Return the points with the new one."""
    return {"points": (*record.points, payload.kept)}


def dropped(record: Kept, _: Event, payload: DiskPointsDropped) -> dict[str, Any]:
    """Return the points that stay."""
    return {"points": tuple(each for each in record.points if each.name not in payload.points)}

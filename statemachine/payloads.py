"""What each type of event says: one class a type, and which class is read for it.

Adding a field with a default needs no new schema version; anything else does, with an upcaster in
`events.UPCASTERS`. Unknown fields are ignored when read, so that an older program can read what a
newer one added; the log keeps them.

Pure; may be imported by projection, history and everything in `reconciler`.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from statemachine.asker import Requester
from statemachine.basefacts import BaseAdded, BaseRemoved, BaseVerified
from statemachine.codec import to_data
from statemachine.diskfacts import (
    ADOPTED,
    EXPIRED,
    EXTENDED,
    FORKED,
    IDLE,
    IMPORTED,
    LAPSES,
    CowGrown,
    CowThresholdCrossed,
    DiskCheckpointed,
    DiskDeclared,
    DiskExported,
    DiskFaulted,
    DiskFrozen,
    DiskHeld,
    DiskPointsDropped,
    DiskRecovered,
    DiskThawed,
    DriftDetected,
    TransitionCompleted,
    TransitionFailed,
    TransitionStarted,
    again,
)
from statemachine.events import Event, EventType, read_data
from statemachine.hostfacts import (
    HostBooted,
    LogArchived,
    LogRestored,
    OrphanFound,
    OrphanResolved,
    ReconcilerStarted,
    ReconcilerStopped,
)
from statemachine.quickread import structure

__all__ = [
    "ADOPTED",
    "EXPIRED",
    "EXTENDED",
    "FORKED",
    "IDLE",
    "IMPORTED",
    "LAPSES",
    "PAYLOADS",
    "BaseAdded",
    "BaseRemoved",
    "BaseVerified",
    "CowGrown",
    "CowThresholdCrossed",
    "DiskCheckpointed",
    "DiskDeclared",
    "DiskExported",
    "DiskFaulted",
    "DiskFrozen",
    "DiskHeld",
    "DiskPointsDropped",
    "DiskRecovered",
    "DiskThawed",
    "DriftDetected",
    "HostBooted",
    "LogArchived",
    "LogRestored",
    "OrphanFound",
    "OrphanResolved",
    "ReconcilerStarted",
    "ReconcilerStopped",
    "Requester",
    "TransitionCompleted",
    "TransitionFailed",
    "TransitionStarted",
    "again",
    "read",
    "structure",
    "to_data",
    "type_of",
]

PAYLOADS: Final[dict[EventType, type[Any]]] = {
    EventType.DISK_DECLARED: DiskDeclared,
    EventType.TRANSITION_STARTED: TransitionStarted,
    EventType.TRANSITION_COMPLETED: TransitionCompleted,
    EventType.TRANSITION_FAILED: TransitionFailed,
    EventType.DRIFT_DETECTED: DriftDetected,
    EventType.DISK_FAULTED: DiskFaulted,
    EventType.DISK_RECOVERED: DiskRecovered,
    EventType.DISK_HELD: DiskHeld,
    EventType.COW_THRESHOLD_CROSSED: CowThresholdCrossed,
    EventType.COW_GROWN: CowGrown,
    EventType.DISK_FROZEN: DiskFrozen,
    EventType.DISK_THAWED: DiskThawed,
    EventType.DISK_EXPORTED: DiskExported,
    EventType.DISK_CHECKPOINTED: DiskCheckpointed,
    EventType.DISK_POINTS_DROPPED: DiskPointsDropped,
    EventType.ORPHAN_FOUND: OrphanFound,
    EventType.ORPHAN_RESOLVED: OrphanResolved,
    EventType.LOG_RESTORED: LogRestored,
    EventType.HOST_BOOTED: HostBooted,
    EventType.RECONCILER_STARTED: ReconcilerStarted,
    EventType.RECONCILER_STOPPED: ReconcilerStopped,
    EventType.LOG_ARCHIVED: LogArchived,
    EventType.BASE_ADDED: BaseAdded,
    EventType.BASE_VERIFIED: BaseVerified,
    EventType.BASE_REMOVED: BaseRemoved,
}
_BY_NAME: Final = {event_type.value: payload for event_type, payload in PAYLOADS.items()}
_TYPES: Final = {payload: event_type for event_type, payload in PAYLOADS.items()}


def type_of(payload: object) -> EventType:
    """Return the type of event that a payload belongs to."""
    return _TYPES[type(payload)]


def read(event: Event) -> object:
    """Return the payload of an event.

    Returns:
        An instance of the class of its type; None for a type this version does not know.
    """
    kind = _BY_NAME.get(event.type)
    if kind is None:
        return None
    if kind is not TransitionStarted:
        return structure(event.data, kind)
    try:
        return _intent(event.data_text)
    except ValueError:  # which does not say of which event
        return structure(event.data, kind)


@functools.lru_cache(maxsize=1024)
def _intent(text: str) -> object:
    """Read an intent: of all disks most are in the same few words."""
    return structure(read_data(EventType.TRANSITION_STARTED, text, actor=""), TransitionStarted)

"""What setbacks and their ends change of a record: faults, wishes held back, frozen devices.

Pure; may be imported by projection.
"""

from __future__ import annotations

from typing import Any

from statemachine import payloads
from statemachine.events import Event
from statemachine.plight import Fault, Frozen, Held


def faulted(_: object, event: Event, payload: payloads.DiskFaulted) -> dict[str, Any]:
    """Return what a fault changes."""
    fault = Fault(
        kind=payload.kind,
        message=payload.message,
        since=event.at,
        hint=payload.hint,
        exit_code=payload.exit_code,
    )
    return {"fault": fault, "in_flight": None}


def recovered(_: object, event: Event, payload: payloads.DiskRecovered) -> dict[str, Any]:
    """Return what a person's word changes."""
    del payload
    return {
        "fault": None,
        "failure": None,
        "held": None,
        "attempts": 0,
        "correlation_id": event.correlation_id,
    }


def held(_: object, event: Event, payload: payloads.DiskHeld) -> dict[str, Any]:
    """Return what it changes that a wish is held back."""
    # What was begun before the backup was made has ended since, one way or the other.
    held = Held(message=payload.message, since=event.at)
    return {"held": held, "in_flight": None, "failure": None, "rewind": None}


def frozen(_: object, event: Event, payload: payloads.DiskFrozen) -> dict[str, Any]:
    """Return what freezing changes."""
    frozen = Frozen(cause=payload.cause, message=payload.message, since=event.at)
    return {"frozen": frozen}


def thawed(_: object, event: Event, payload: payloads.DiskThawed) -> dict[str, Any]:
    """Return what thawing changes."""
    del event, payload
    return {"frozen": None}

"""What transitions tell of a CoW file that is made smaller: when it is due, and how far it is.

A paused disk gets a new store beside its file first, and the name in a transition of its own: so
the log knows both files while either may be in the place.

Pure; may be imported by projection.
"""

from __future__ import annotations

from typing import Any, Protocol

from statemachine.diskfacts import TransitionCompleted
from statemachine.fileidentity import FileIdentity
from statemachine.machine import State, Trigger
from statemachine.spec import DriverChoice


class Stored(Protocol):
    """What of a record this is about; see `record.Record`."""

    @property
    def spec(self) -> dict[str, str]:
        """The spec."""

    @property
    def driver(self) -> str:
        """Only a dm-snapshot has a store."""

    @property
    def cow_next(self) -> FileIdentity | None:
        """The new store that has no name yet."""

    @property
    def sparsify_due(self) -> bool:
        """Whether one is wanted."""


def after(record: Stored, payload: TransitionCompleted) -> dict[str, Any]:
    """Return what a transition that worked changes."""
    done: dict[str, Any] = {"cow_next": None, "sparsify_due": False}
    if payload.target is not State.PAUSED:
        return done
    if payload.trigger is Trigger.PAUSE:
        wanted = record.sparsify_due or record.spec.get("sparsify") == "true"
        return done | {"sparsify_due": wanted and record.driver == DriverChoice.DM_SNAPSHOT}
    if payload.cow_next is not None:
        return {"cow_next": payload.cow_next, "sparsify_due": True}
    if record.cow_next is not None:
        return done | {"cow_level": 0}
    return {} if payload.saved_bytes is None else done

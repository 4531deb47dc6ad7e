"""A link that goes from one disk to another: what its two declarations change of their records.

The one that has it no more forgets it at once, and leaves it in its place; the other knows from
then on where it leads, and may turn it to its own device. So the log names one owner at any moment.

Pure; may be imported by projection.
"""

from __future__ import annotations

from typing import Any, Protocol

from statemachine.diskfacts import DiskDeclared, TransitionCompleted
from statemachine.machine import State


class Linked(Protocol):
    """What of a record this is about; see `record.Record`."""

    @property
    def spec(self) -> dict[str, str]:
        """The spec before the declaration."""

    @property
    def link(self) -> str:
        """Where its link was made."""

    @property
    def links_begun(self) -> tuple[str, ...]:
        """Links that an attempt set out to make."""

    @property
    def link_taken(self) -> str:
        """Where a link that was taken over before leads, if it was not turned yet."""


def told(record: Linked, payload: DiskDeclared) -> dict[str, Any]:
    """Return what a later declaration changes of a record's link, besides the wish.

    Args:
        record: as it was before.
        payload: the declaration.
    """
    tells_link = payload.link_to or payload.link_from or "link" in payload.without
    if not tells_link and "link" not in payload.spec and not payload.id:
        return {}
    before, after = record.spec.get("link", ""), payload.spec_after(record.spec).get("link", "")
    begun = record.links_begun
    changes: dict[str, Any] = {}
    if before != after:
        changes["link_from"] = ""
    if payload.link_to:
        begun = tuple(path for path in begun if path != before)
        changes["link_taken"] = ""
        if record.link == before:
            changes |= {"link": "", "link_target": ""}
    elif before != after and (record.link_taken or payload.link_from):
        # What does not lead here yet, or is not recorded as made, is looked for in its place.
        begun = _with(begun, before)
    if payload.link_from:
        changes |= {"link_from": payload.link_from, "link_taken": payload.link_taken}
    return changes | {"links_begun": begun}


def taken_after(record: Linked, payload: TransitionCompleted) -> str:
    """Return where a link that was taken over leads still, after a transition.

    One that was begun before the link was taken over knew nothing of it.
    """
    is_turned = bool(payload.link) and payload.link == record.spec.get("link")
    return "" if is_turned or payload.target is State.REMOVED else record.link_taken


def _with(places: tuple[str, ...], place: str) -> tuple[str, ...]:
    return (*places, place) if place and place not in places else places

"""Which events somebody asks for: a question, and whether an event fits it.

`fits` is what a question means. `search` finds the same events by the indexes of the log, and
events from elsewhere (an archive) are chosen by `fits` itself.

Pure; may be imported by search, history, summary and `reconciler`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import attrs

from statemachine import shorthand
from statemachine.events import Event, EventType
from statemachine.utc import iso

OUTCOMES: Final[dict[str, tuple[EventType, str]]] = {
    "completed": (EventType.TRANSITION_COMPLETED, ""),
    "failed": (EventType.TRANSITION_FAILED, ""),
    "transient": (EventType.TRANSITION_FAILED, "transient"),
    "blocked": (EventType.TRANSITION_FAILED, "blocked"),
    "permanent": (EventType.TRANSITION_FAILED, "permanent"),
}
"""How a transition ended, or with what consequence it failed: the type, and the consequence."""

UID_PREFIX: Final = "uid:"
"""An actor may be asked for by uid, for a user whose name has changed: "uid:1000"."""


@attrs.frozen(kw_only=True)
class Question:
    """Which events are wanted; every part that is given must fit. Times are UTC in ns."""

    disk: str | None = None
    generation: int | None = None
    since: int | None = None
    until: int | None = None
    """Events before this time."""
    type: str | None = None
    """A whole type ("disk.declared") or its first word ("transition")."""
    trigger: str | None = None
    actor: str | None = None
    """A user's name, "reconciler", or "uid:" and a uid."""
    on_behalf_of: str | None = None
    """Whom the caller said to act for."""
    correlation: str | None = None
    """A correlation id, or its beginning."""
    outcome: str | None = None
    """One of `OUTCOMES`."""
    text: str | None = None
    """Part of the reason or of the data, in upper or lower case; see `folding`."""
    after: int = 0
    """Only events with a larger seq."""
    before: int | None = None
    """Only events with a smaller seq."""
    newest_first: bool = False

    def __attrs_post_init__(self) -> None:
        """Check what only a program can get wrong."""
        assert self.outcome is None or self.outcome in OUTCOMES, f"no outcome: {self.outcome}"

    def takes_type(self, event_type: str) -> bool:
        """Tell whether events of a type may fit: by `type`, `outcome` and `trigger`."""
        if self.type is not None and event_type != self.type:
            family = f"{self.type}."
            if not event_type.startswith(family):
                return False
        if self.outcome is not None and event_type != OUTCOMES[self.outcome][0]:
            return False
        return self.trigger is None or event_type.startswith(("transition.", "drift."))

    @property
    def names_types(self) -> bool:
        """Whether `takes_type` leaves any type out."""
        return not (self.type is None and self.outcome is None and self.trigger is None)


def fits(question: Question, event: Event) -> bool:
    """Tell whether an event is one of those that are asked for."""
    return question.takes_type(event.type) and all(
        test(question, event) for test in (_place_fits, _who_fits, _data_fits)
    )


def _place_fits(question: Question, event: Event) -> bool:
    return (
        question.disk in (None, event.disk)
        and question.generation in (None, event.generation)
        and event.seq > question.after
        and (question.before is None or event.seq < question.before)
        and (question.since is None or event.at >= question.since)
        and (question.until is None or event.at < question.until)
    )


def _who_fits(question: Question, event: Event) -> bool:
    if not event.correlation_id.startswith(question.correlation or ""):
        return False
    claimed = question.on_behalf_of
    if claimed is not None and event.data.get("on_behalf_of") != claimed:
        return False
    uid = wanted_uid(question)
    if uid is not None:
        by = event.data.get("by")
        return isinstance(by, dict) and by.get("uid") == uid
    return question.actor in (None, event.actor)


def wanted_uid(question: Question) -> int | None:
    """Return the uid that is asked for; None when it is a name, or anybody."""
    rest = (question.actor or "").removeprefix(UID_PREFIX)
    return int(rest) if rest != question.actor and rest.isdecimal() else None


def _data_fits(question: Question, event: Event) -> bool:
    if question.trigger is not None and event.data.get("trigger") != question.trigger:
        return False
    if question.outcome is not None:
        _, consequence = OUTCOMES[question.outcome]
        if consequence and event.data.get("consequence") != consequence:
            return False
    if not question.text:
        return True
    fold = folding(question.text)
    found = fold(question.text) in fold(event.reason)
    return found or any(fold(form) in fold(event.data_text) for form in in_data(question.text))


def folding(text: str) -> Callable[[str], str]:
    """Return how case is taken away to look for a text.

    Only A to Z when the text is ASCII, as SQLite's `lower` does; else by all of Unicode.
    """
    return _ascii_lower if text.isascii() else str.casefold


def _ascii_lower(text: str) -> str:
    return text.encode(errors="surrogateescape").lower().decode(errors="surrogateescape")


def in_data(text: str) -> set[str]:
    """Return how a text may stand in the column `data`: as it is, and as a string of its JSON."""
    return {text, json.dumps(text, ensure_ascii=False)[1:-1]}


def as_json(event: Event) -> dict[str, Any]:
    """Return an event with the columns of the log: `at` as ISO 8601 with nanoseconds.

    The data is of the version that it was written in, with what it left out.
    """
    columns = dict(zip(_NAMES, event.columns(), strict=True))
    columns["at"] = iso(event.at)
    columns["data"] = data = json.loads(event.data_text)
    if isinstance(data, dict):
        shorthand.fill_in(data, actor=event.actor)
    return columns


def as_text(event: Event) -> dict[str, Any]:
    """Return an event as `as_json` does, but `data` is the text of its JSON."""
    columns = as_json(event)
    columns["data"] = json.dumps(columns["data"], separators=(",", ":"), ensure_ascii=False)
    return columns


_NAMES: Final = tuple(each.name.removesuffix("_text") for each in attrs.fields(Event))

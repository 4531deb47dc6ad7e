"""What an event leaves out of its data, as the rest of the event gives it anyway.

Most triggers lead to one state only, and some come from one only; who asked is the actor; a later
declaration is mostly made by a command. `shorten` takes such things out before an event is written,
and `fill_in` puts them back when one is read. So whoever reads an event sees the whole, and whoever
reads the table finds the states by the views. Pure; may be imported by events and schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from statemachine.machine import EDGES, Edge, Trigger

LATER_WHY: Final = "command"
"""The `why` of a later declaration that says none: a command asked for another state."""


def _only_one(place: Callable[[Edge], str]) -> dict[str, str]:
    """Return the triggers all of whose edges have the same state in a place, and that state."""
    states = {each: {place(edge) for edge in EDGES if edge.trigger is each} for each in Trigger}
    return {each.value: found.pop() for each, found in states.items() if len(found) == 1}


GIVEN: Final[dict[str, dict[str, str]]] = {
    "source": _only_one(lambda edge: edge.source.value),
    "target": _only_one(lambda edge: edge.target.value),
}
"""Field → trigger → the state that goes without saying."""


def shorten(data: Mapping[str, Any], *, actor: str) -> dict[str, Any]:
    """Return a payload without what `fill_in` puts back."""
    short = dict(data)
    if "trigger" in short:
        for field, states in GIVEN.items():
            if field in short and short[field] == states.get(short["trigger"]):
                del short[field]
    if "spec" in short and "id" not in short:
        why = short.pop("why", "declared")
        short |= {} if why == LATER_WHY else {"why": why}
    by = short.get("by")
    if by is not None and by.get("user") == actor:
        short["by"] = {name: value for name, value in by.items() if name != "user"}
    return short


def fill_in(data: Mapping[str, Any], *, actor: str) -> Mapping[str, Any]:
    """Return a payload of the newest version with what `shorten` took out; what is there stays."""
    trigger, by = data.get("trigger"), data.get("by")
    missing: dict[str, Any] = {}
    if type(trigger) is str:  # whoever edits a log may write anything
        for field, states in GIVEN.items():
            if field not in data and trigger in states:
                missing[field] = states[trigger]
    if "spec" in data and "id" not in data and "why" not in data:
        missing["why"] = LATER_WHY
    if type(by) is dict and "user" not in by:
        missing["by"] = {**by, "user": actor}
    return {**data, **missing} if missing else data

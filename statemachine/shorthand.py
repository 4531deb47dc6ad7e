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
_LATER_WHY_SINCE: Final = 3
"""The version of `disk.declared` from which on that is left out; before it was the default."""
_DEFAULT_WHY: Final = "declared"


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
        why = short.pop("why", _DEFAULT_WHY)
        short |= {} if why == LATER_WHY else {"why": why}
    by = short.get("by")
    if by is not None and by.get("user") == actor:
        short["by"] = {name: value for name, value in by.items() if name != "user"}
    return short


def fill_in(data: dict[str, Any], *, actor: str) -> None:
    """Put what `shorten` took out back into a payload, in place; what is there stays."""
    trigger = data.get("trigger")
    if trigger is not None:
        if type(trigger) is str:  # whoever edits a log may write anything
            for field, state in _OF_TRIGGER.get(trigger, ()):
                data.setdefault(field, state)
    elif "spec" in data and "id" not in data:
        version = data.get("v")
        is_new = type(version) is int and version >= _LATER_WHY_SINCE
        if is_new and data.setdefault("why", LATER_WHY) == _DEFAULT_WHY:
            del data["why"]  # what is at its default is not there
    by = data.get("by")
    if type(by) is dict:
        by.setdefault("user", actor)


_OF_TRIGGER: Final = {
    each.value: tuple(
        (field, states[each.value]) for field, states in GIVEN.items() if each.value in states
    )
    for each in Trigger
}

"""The life of one disk as spans of states and marks between them: what a timeline shows.

Pure; may be imported by `reconciler`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from statemachine.events import Event, EventType
from statemachine.machine import State

PARTS_MAX: Final = 50_000
"""How many spans and marks are drawn at the most; more would be a wall and not a picture."""


class MarkKind(enum.StrEnum):
    """What is worth a mark beside the states."""

    FAILURE = "failure"
    DRIFT = "drift"
    FAULT = "fault"
    FROZEN = "frozen"


_KINDS: Final[dict[str, MarkKind]] = {
    EventType.TRANSITION_FAILED: MarkKind.FAILURE,
    EventType.DRIFT_DETECTED: MarkKind.DRIFT,
    EventType.DISK_FAULTED: MarkKind.FAULT,
    EventType.DISK_FROZEN: MarkKind.FROZEN,
}
_MOVES: Final = frozenset({EventType.TRANSITION_COMPLETED, EventType.DRIFT_DETECTED})


@attrs.frozen(kw_only=True)
class Span:
    """A time in one state; UTC in ns."""

    state: str
    begin: int
    end: int


@attrs.frozen(kw_only=True)
class Mark:
    """Something that went wrong, or was found to be."""

    kind: MarkKind
    at: int
    seq: int
    message: str


@attrs.frozen(kw_only=True)
class Life:
    """One generation: its states without a gap, and its marks."""

    generation: int
    spans: tuple[Span, ...]
    marks: tuple[Mark, ...]

    @property
    def begin(self) -> int:
        """When it was first declared, UTC in ns."""
        return self.spans[0].begin

    @property
    def end(self) -> int:
        """When it was removed, or until when it was looked at."""
        return self.spans[-1].end


class TooManyParts(ValueError):
    """There is more than a picture can show."""


def lives(events: Iterable[Event], *, now: int) -> list[Life]:
    """Return the generations of one disk.

    Args:
        events: all of one disk, or of one of its generations, oldest first.
        now: until when the last state lasts, unless the disk is removed; UTC in ns.

    Raises:
        TooManyParts: there are more than `PARTS_MAX` spans and marks.
    """
    found: list[_Growing] = []
    parts = 0
    for event in events:
        if not found or found[-1].generation != event.generation:
            found.append(_Growing(event.generation, event.at))
        parts += found[-1].add(event)
        if parts > PARTS_MAX:
            raise TooManyParts
    return [each.grown(now) for each in found]


class _Growing:
    """A generation while its events are read."""

    def __init__(self, generation: int, at: int) -> None:
        self.generation = generation
        self._spans: list[Span] = []
        self._marks: list[Mark] = []
        self._state = State.ABSENT.value
        self._since = at

    def add(self, event: Event) -> int:
        """Take the next event; return how many parts it made."""
        data, parts = event.data, 0
        kind = _KINDS.get(event.type)
        if kind is not None:
            self._marks.append(Mark(kind=kind, at=event.at, seq=event.seq, message=_message(event)))
            parts += 1
        if event.type in _MOVES and data.get("target") != self._state:
            self._end_span(event.at)
            self._state = str(data.get("target"))
            parts += 1
        return parts

    def grown(self, now: int) -> Life:
        """Return the whole."""
        if self._state != State.REMOVED.value or not self._spans:
            self._end_span(now)
        return Life(generation=self.generation, spans=tuple(self._spans), marks=tuple(self._marks))

    def _end_span(self, at: int) -> None:
        # A clock that was set back makes a span without length, and not one that ends before it
        # begins.
        end = max(at, self._since)
        self._spans.append(Span(state=self._state, begin=self._since, end=end))
        self._since = end


def _message(event: Event) -> str:
    data = event.data
    if event.type == EventType.DRIFT_DETECTED:
        return "; ".join(map(str, data.get("differences", ())))
    said = str(data.get("message", ""))
    return f"{data['trigger']}: {said}" if "trigger" in data else said


def cells(life: Life, *, begin: int, end: int, count: int) -> list[str]:
    """Return the state that fills most of each of `count` equal parts of a time; "" for none."""
    size = max(1, (end - begin) / count)
    spent: list[dict[str, float]] = [{} for _ in range(count)]
    for span in life.spans:
        first = min(count - 1, int((span.begin - begin) / size))
        last = min(count - 1, int((span.end - begin) / size))
        for index in range(first, last + 1):
            left, right = begin + index * size, begin + (index + 1) * size
            inside = min(span.end, right) - max(span.begin, left)
            if inside > 0 or span.begin == span.end:
                spent[index][span.state] = spent[index].get(span.state, 0) + max(inside, 0)
    return [max(each, key=lambda state: each[state]) if each else "" for each in spent]


def bounds(found: Sequence[Life]) -> tuple[int, int]:
    """Return the first and the last moment of several generations, never the same."""
    begin, end = min(each.begin for each in found), max(each.end for each in found)
    return begin, max(end, begin + 1)

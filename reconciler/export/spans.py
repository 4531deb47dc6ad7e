"""Transitions as spans: from the intent to its outcome, in the trace of their request.

A span is one attempt, also one that was refused before anything was begun. One whose intent was
followed by another without an outcome was left open by a crash, and ends where the next one began.
May be imported by the package and cli.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import attrs

from statemachine.events import Event, EventType

Value = str | int | bool


@attrs.frozen(kw_only=True)
class Span:
    """One attempt of a transition; times are UTC in ns, ids as in the W3C's trace context."""

    trace_id: int
    span_id: int
    name: str
    begin: int
    end: int
    attributes: dict[str, Value]
    error: str = ""
    """Why it failed; "" when it was completed."""


class Spans:
    """Makes spans of events, in the order of the log; keeps one open intent for each disk."""

    def __init__(self, root_id: str) -> None:
        self._root_id = root_id
        self._open: dict[str, Event] = {}

    @property
    def unfinished(self) -> int:
        """How many intents have no outcome yet."""
        return len(self._open)

    def of(self, events: Iterable[Event]) -> Iterator[Span]:
        """Yield a span for each attempt whose end is among the events."""
        for event in events:
            if event.type == EventType.TRANSITION_STARTED:
                before = self._open.get(event.disk)
                if before is not None:
                    yield self._span(before, event.at, "left open by a crash", {})
                self._open[event.disk] = event
            elif event.type in (EventType.TRANSITION_COMPLETED, EventType.TRANSITION_FAILED):
                yield self._ended(self._open.pop(event.disk, None), event)

    def _ended(self, intent: Event | None, outcome: Event) -> Span:
        """Return the span of an outcome.

        It has no intent where nothing was begun, as the disk was in use, or where the intent is
        not among the events: then it began so long ago as the outcome says it took.
        """
        if intent is None:
            began = outcome.at - int(outcome.data.get("duration_ns", 0))
            intent = attrs.evolve(outcome, at=began)
        data = outcome.data
        if outcome.type == EventType.TRANSITION_COMPLETED:
            given: dict[str, Value] = {"byre.device": str(data.get("device", ""))}
            return self._span(intent, outcome.at, "", given)
        given = {
            "byre.consequence": str(data.get("consequence", "")),
            "error.type": str(data.get("kind", "")) or "_OTHER",
            "byre.action": str(data.get("action", "")),
        }
        return self._span(intent, outcome.at, str(data.get("message") or "failed"), given)

    def _span(self, intent: Event, end: int, error: str, given: dict[str, Value]) -> Span:
        data = intent.data
        trigger = str(data.get("trigger", "transition"))
        attributes: dict[str, Value] = {
            "byre.disk": intent.disk,
            "byre.generation": intent.generation,
            "byre.seq": intent.seq,
            "byre.trigger": trigger,
            "byre.source": str(data.get("source", "")),
            "byre.target": str(data.get("target", "")),
            "byre.driver": str(data.get("driver", "")),
            "byre.attempt": int(data.get("attempt", 1)),
            "byre.boot_id": intent.boot_id,
            **given,
        }
        return Span(
            trace_id=_trace_id(intent),
            span_id=_hashed(f"{self._root_id}:{intent.seq}", bits=64),
            name=f"{trigger} {intent.disk}",
            begin=intent.at,
            end=max(end, intent.at),
            attributes={name: value for name, value in attributes.items() if value != ""},
            error=error,
        )


def _trace_id(event: Event) -> int:
    """Return the correlation id as a number; made of the event's place where it is none."""
    try:
        number = int(event.correlation_id, 16)
    except ValueError:
        number = 0
    is_valid = 0 < number < 2**128
    return number if is_valid else _hashed(f"{event.boot_id}:{event.seq}", bits=128)


def _hashed(text: str, *, bits: int) -> int:
    """Return a number that is never 0, which means "none" to a trace."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[: bits // 8], "big") or 1

"""Does the log explain everything that happened? Pure questions to a list of events.

Each answer is a list of what is not explained: empty is good. May be imported by the torture tests
and the crash tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from reconciler.outcome import is_there
from statemachine import projection
from statemachine.events import Event, EventType
from statemachine.record import Record

_OUTCOMES = (EventType.TRANSITION_COMPLETED, EventType.TRANSITION_FAILED)


def unexplained_intents(events: Iterable[Event]) -> list[str]:
    """Return the intents without an outcome that nobody resumed, and outcomes without an intent.

    An intent that follows an open one must name its seq, and one that follows none must not. An
    attempt that failed before anything was touched has an outcome and no intent: it names no
    action.
    """
    opened: dict[str, Event] = {}
    wrong: list[str] = []
    for event in events:
        before = opened.get(event.disk)
        if event.type == EventType.TRANSITION_STARTED:
            resumes, due = event.data.get("resumes"), before.seq if before else None
            if resumes != due:
                wrong.append(f"{event.seq} of {event.disk} resumes {resumes}, not {due}")
            opened[event.disk] = event
        elif event.type in _OUTCOMES:
            needs_none = event.type == EventType.TRANSITION_FAILED and "action" not in event.data
            if before is None and not needs_none:
                wrong.append(f"{event.seq} of {event.disk} is an outcome without an intent")
            opened.pop(event.disk, None)
    return wrong + [f"{event.seq} of {disk} has no outcome" for disk, event in opened.items()]


def resumed(events: Iterable[Event]) -> int:
    """Return how many intents went on with one that a crash left."""
    return sum("resumes" in e.data for e in events if e.type == EventType.TRANSITION_STARTED)


def transitions(events: Iterable[Event]) -> int:
    """Return how many transitions were completed."""
    return sum(event.type == EventType.TRANSITION_COMPLETED for event in events)


def untold_starts(events: Iterable[Event], *, ready: set[int], tried: set[int]) -> list[str]:
    """Return the starts of a reconciler that the log does not tell of, or tells of twice.

    Args:
        events: of the whole log.
        ready: the process ids of those that said that they were ready.
        tried: the process ids of all that were started, some killed before they had the lock.
    """
    told = Counter(e.data["pid"] for e in events if e.type == EventType.RECONCILER_STARTED)
    wrong = [f"start of {pid} is not in the log" for pid in sorted(ready - told.keys())]
    wrong += [f"start of {pid}, which nobody made" for pid in sorted(told.keys() - tried)]
    return wrong + [f"start of {pid} is told {n} times" for pid, n in told.items() if n > 1]


@attrs.frozen(kw_only=True)
class Promise:
    """A command that ended with 0 said so: from its declaration on, the disk was there once."""

    disk: str
    pid: int
    """Of the process that declared it."""


def broken_promises(events: Sequence[Event], promises: Iterable[Promise]) -> list[str]:
    """Return the acknowledged commands whose outcome the log does not have."""
    kept: set[Promise] = set()
    asked: dict[str, Promise] = {}
    records: dict[str, Record] = {}
    for event in events:
        record = projection.apply(records.get(event.disk), event)
        if record is None:
            continue
        records[event.disk] = record
        if event.type == EventType.DISK_DECLARED:
            by = event.data.get("by")  # nobody, when a removed disk's next generation begins
            if by is not None:
                asked[event.disk] = Promise(disk=event.disk, pid=by["pid"])
        if event.disk in asked and is_there(record):
            kept.add(asked[event.disk])
    return [f"{p.disk}: process {p.pid} was told 0" for p in promises if p not in kept]


def forgotten(events: Iterable[Event], told: Iterable[tuple[int, str]]) -> list[str]:
    """Return the acknowledged events, as (seq, hash), that the log does not have as they were."""
    hashes = {event.seq: event.hash for event in events}
    return [f"event {seq} was told of" for seq, digest in told if hashes.get(seq) != digest]

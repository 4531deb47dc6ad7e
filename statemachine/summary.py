"""Counts and durations of many events, gathered one by one: per disk, per trigger, per actor.

Every event is counted. What is kept is a few numbers for each disk, trigger and actor, and of the
durations of a trigger a histogram whose steps are 1 % apart: a quantile is at most 1 % off, and
no event is left out of it. So memory grows with the disks and not with the events.

Pure; may be imported by `reconciler`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import attrs

from statemachine.events import Event, EventType
from statemachine.machine import State

_STEP: Final = 1.01
_TRANSITIONS: Final = frozenset({EventType.TRANSITION_COMPLETED, EventType.TRANSITION_FAILED})
_MOVES: Final = frozenset({EventType.TRANSITION_COMPLETED, EventType.DRIFT_DETECTED})
"""What changes the state of a disk."""
QUANTILES: Final = (50, 95, 99)


class Durations:
    """How long something took, many times: exact count, sum and longest; quantiles within 1 %."""

    def __init__(self) -> None:
        self.count = 0
        self.sum_ns = 0
        self.longest_ns = 0
        self.longest_seq = 0
        self._steps: Counter[int] = Counter()

    def add(self, duration_ns: int, seq: int) -> None:
        """Take one more duration, and where in the log it stands."""
        self.count += 1
        self.sum_ns += duration_ns
        self._steps[round(math.log(max(duration_ns, 1), _STEP))] += 1
        if duration_ns > self.longest_ns or not self.longest_seq:
            self.longest_ns, self.longest_seq = duration_ns, seq

    def quantile(self, percent: int) -> int:
        """Return the duration that so many percent do not exceed, in ns; 0 when there is none."""
        missing = math.ceil(self.count * percent / 100)
        for step in sorted(self._steps):
            missing -= self._steps[step]
            if missing <= 0:
                return min(round(_STEP**step), self.longest_ns)
        return 0


@attrs.define(eq=False)
class OfDisk:
    """One disk: how often what happened, and how long it was in each state."""

    transitions: int = 0
    failures: int = 0
    retries: int = 0
    """Attempts after the first one."""
    drifts: int = 0
    faults: int = 0
    slowest: Durations = attrs.field(factory=Durations)
    in_state_ns: Counter[str] = attrs.field(factory=Counter)
    state: str = ""
    since: int = 0

    def enter(self, state: str, at: int) -> None:
        """Note that it is in a state from now on; a clock that was set back counts as no time."""
        self.leave(at)
        self.state, self.since = state, at

    def leave(self, at: int) -> None:
        """Count the time in its state until now."""
        if self.state:
            self.in_state_ns[self.state] += max(0, at - self.since)
        self.since = at


@attrs.define(eq=False)
class OfTrigger:
    """One trigger: how often it was completed and failed, and how long it took."""

    completed: int = 0
    failed: int = 0
    durations: Durations = attrs.field(factory=Durations)


@attrs.define(eq=False)
class Summary:
    """What many events add up to."""

    events: int = 0
    first_at: int = 0
    last_at: int = 0
    disks: dict[str, OfDisk] = attrs.field(factory=dict)
    triggers: dict[str, OfTrigger] = attrs.field(factory=dict)
    actors: dict[str, Counter[str]] = attrs.field(factory=dict)
    """By actor: how many events of each type."""

    def add(self, event: Event) -> None:
        """Take the next event, in the order of the log."""
        self.events += 1
        self.first_at = self.first_at or event.at
        self.last_at = max(self.last_at, event.at)
        self.actors.setdefault(event.actor, Counter())[event.type] += 1
        if not event.generation:  # of the host
            return
        disk = self.disks.setdefault(event.disk, OfDisk())
        data = event.data
        if event.type in _MOVES:
            _move(disk, event.at, str(data.get("source")), str(data.get("target")))
        elif event.type == EventType.DISK_DECLARED and event.version == 1:
            disk.enter(State.ABSENT.value, event.at)
        if event.type in _TRANSITIONS:
            self._add_outcome(disk, event, str(data.get("trigger")))
        disk.retries += event.type == EventType.TRANSITION_STARTED and data.get("attempt", 1) > 1
        disk.drifts += event.type == EventType.DRIFT_DETECTED
        disk.faults += event.type == EventType.DISK_FAULTED

    def _add_outcome(self, disk: OfDisk, event: Event, name: str) -> None:
        trigger = self.triggers.setdefault(name, OfTrigger())
        if event.type == EventType.TRANSITION_FAILED:
            disk.failures += 1
            trigger.failed += 1
            return
        disk.transitions += 1
        trigger.completed += 1
        duration_ns = event.data.get("duration_ns", 0)
        trigger.durations.add(duration_ns, event.seq)
        disk.slowest.add(duration_ns, event.seq)


def _move(disk: OfDisk, at: int, source: str, target: str) -> None:
    if not disk.state:  # its first event here: how long it was in the state before is not known
        disk.state, disk.since = source, at
    disk.enter(target, at)


def summarise(events: Iterable[Event], *, now: int | None = None) -> Summary:
    """Return what events add up to, in one pass.

    Args:
        events: in the order of the log; of each disk what was asked for.
        now: until when the last state of a disk lasts, UTC in ns; None for the last event's time.
    """
    summary = Summary()
    for event in events:
        summary.add(event)
    for disk in summary.disks.values():
        if disk.state != State.REMOVED.value:
            disk.leave(max(summary.last_at if now is None else now, disk.since))
    return summary


def as_plain(summary: Summary) -> dict[str, Any]:
    """Return a summary as plain data for JSON; durations in ns."""
    actors = {name: dict(sorted(each.items())) for name, each in sorted(summary.actors.items())}
    return {
        "events": summary.events,
        "disks": {name: _disk(disk) for name, disk in sorted(summary.disks.items())},
        "triggers": {name: _trigger(each) for name, each in sorted(summary.triggers.items())},
        "actors": actors,
    }


def _disk(disk: OfDisk) -> dict[str, Any]:
    slowest = disk.slowest
    return {
        "transitions": disk.transitions,
        "failures": disk.failures,
        "retries": disk.retries,
        "drifts": disk.drifts,
        "faults": disk.faults,
        "slowest": {"duration_ns": slowest.longest_ns, "seq": slowest.longest_seq}
        if slowest.count
        else None,
        "in_state_ns": dict(disk.in_state_ns),
    }


def _trigger(each: OfTrigger) -> dict[str, Any]:
    spent = each.durations
    found = {f"p{percent}_ns": spent.quantile(percent) for percent in QUANTILES}
    return {
        "completed": each.completed,
        "failed": each.failed,
        **found,
        "longest_ns": spent.longest_ns,
        "longest_seq": spent.longest_seq,
    }

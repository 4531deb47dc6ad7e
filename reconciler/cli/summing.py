"""`history --summary`: what many events add up to, as tables or as JSON."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.cli import say
from statemachine.events import Event
from statemachine.machine import State
from statemachine.summary import (
    QUANTILES,
    Durations,
    OfDisk,
    OfTrigger,
    Summary,
    as_plain,
    summarise,
)


def tell_summary(events: Iterable[Event], output: str) -> None:
    """Gather the events, in one pass, and print what they add up to."""
    summary = summarise(events)
    if output == "json":
        say.machine(as_plain(summary))
        return
    if not summary.events:
        say.person("no events fit")
        return
    span = f"{say.local_time(summary.first_at)} to {say.local_time(summary.last_at)}"
    say.person(f"{summary.events} events, {span}")
    if summary.disks:
        _tell_disks(summary)
    if summary.triggers:
        columns = ("TRIGGER", "COMPLETED", "FAILED", *(f"P{each}" for each in QUANTILES), "LONGEST")
        rows = [_trigger_row(name, each) for name, each in sorted(summary.triggers.items())]
        say.table(columns, rows)
    rows = [
        [name, str(each.total()), ", ".join(f"{kind} {n}" for kind, n in each.most_common())]
        for name, each in sorted(summary.actors.items())
    ]
    say.table(("ACTOR", "EVENTS", "OF THEM"), rows)


def _tell_disks(summary: Summary) -> None:
    states = [
        state.value
        for state in State
        if any(state.value in disk.in_state_ns for disk in summary.disks.values())
    ]
    counts = ("TRANSITIONS", "FAILURES", "RETRIES", "DRIFTS", "FAULTS", "SLOWEST")
    columns = ("DISK", *counts, *(f"IN {state.upper()}" for state in states))
    rows = [_disk_row(name, disk, states) for name, disk in sorted(summary.disks.items())]
    say.table(columns, rows)


def _disk_row(name: str, disk: OfDisk, states: list[str]) -> list[str]:
    counts = (disk.transitions, disk.failures, disk.retries, disk.drifts, disk.faults)
    spent = disk.in_state_ns
    times = [say.duration(spent[state]) if state in spent else "-" for state in states]
    return [name, *map(str, counts), _longest(disk.slowest), *times]


def _longest(spent: Durations) -> str:
    if not spent.count:
        return "-"
    return f"{say.duration(spent.longest_ns)} (event {spent.longest_seq})"


def _trigger_row(name: str, each: OfTrigger) -> list[str]:
    spent = each.durations
    return [
        name,
        str(each.completed),
        str(each.failed),
        *(say.duration(spent.quantile(percent)) for percent in QUANTILES),
        _longest(spent),
    ]

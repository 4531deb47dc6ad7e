"""What is new in a log since an event: each disk once, and whether somebody asked for something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from statemachine import payloads
from statemachine.commits import Change
from statemachine.eventlog import EventLog
from statemachine.logreader import PAGE_EVENTS
from tests.unit.events_made import declaration, host_event, of_disk

CROSSED = payloads.CowThresholdCrossed(percent=80, used_bytes=8, capacity_bytes=10)
RECOVERED = payloads.DiskRecovered(was="faulted")


@pytest.fixture
def log(folder: Path) -> Iterator[EventLog]:
    with EventLog(folder / "byre.db") as made:
        yield made


def test_an_empty_log_has_no_news(log: EventLog) -> None:
    assert log.changed_since(0) == (0, [])


def test_nothing_is_new_after_the_newest_event(log: EventLog) -> None:
    log.append([declaration("sb-1"), host_event()])
    assert log.changed_since(2) == (2, [])


def test_events_of_the_host_are_of_no_disk(log: EventLog) -> None:
    log.append([declaration("sb-1"), host_event()])
    assert log.changed_since(1) == (2, [])


def test_each_disk_is_named_once_with_its_newest_event(log: EventLog) -> None:
    log.append([declaration("sb-1"), declaration("sb-2"), of_disk("sb-1", CROSSED)])
    newest, changes = log.changed_since(0)
    assert newest == 3
    assert sorted(changes, key=lambda each: each.seq) == [
        Change("sb-2", 2, was_asked=True),
        Change("sb-1", 3, was_asked=True),
    ]


def test_what_a_reconciler_says_asks_for_nothing(log: EventLog) -> None:
    log.append([declaration("sb-1"), of_disk("sb-1", CROSSED)])
    assert log.changed_since(1) == (2, [Change("sb-1", 2, was_asked=False)])
    log.append([of_disk("sb-1", RECOVERED)])
    assert log.changed_since(1) == (3, [Change("sb-1", 3, was_asked=True)])


@pytest.mark.parametrize("count", [PAGE_EVENTS - 1, PAGE_EVENTS, PAGE_EVENTS + 1])
def test_more_than_a_page_is_read_to_its_end(log: EventLog, count: int) -> None:
    log.append([declaration("sb-1"), *[of_disk("sb-1", CROSSED)] * (count - 1)])
    assert log.changed_since(0) == (count, [Change("sb-1", count, was_asked=True)])

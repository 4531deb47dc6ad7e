"""Hints of commits, by a real log, the real inotify and the thread that a reconciler has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.clock import SystemClock
from reconciler.watch.follow import LogFollower
from reconciler.watch.hint import HintKind
from reconciler.watch.log import LogWatcher
from statemachine.eventlog import EventLog
from statemachine.head import HEAD_NAME
from statemachine.names import LOG_NAME
from tests.unit.events_made import host_event
from tests.unit.seen import GIVE_UP_S, QUIET_S, Seen


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog(tmp_path / LOG_NAME) as made:
        made.append([host_event()])
        yield made


@pytest.fixture
def seen(log: EventLog) -> Iterator[Seen]:
    made = Seen()
    watcher = LogWatcher(log.path, SystemClock())
    watcher.start(made)
    yield made
    assert watcher.unavailable == ""
    watcher.stop()


def told(seen: Seen, name: str | None = None) -> bool:
    """Tell whether a hint comes, and forget it."""
    came = seen.has(HintKind.LOG, name, within_s=GIVE_UP_S)
    seen.forget()
    return came


def test_each_commit_is_a_hint_that_names_the_head(log: EventLog, seen: Seen) -> None:
    for _ in range(3):
        log.append([host_event()])
        assert told(seen, HEAD_NAME)


def test_what_is_noted_by_a_head_that_is_kept_open_is_told_to_others_only(
    log: EventLog, seen: Seen
) -> None:
    with LogFollower(log.path) as waiting, EventLog(log.path) as another, log.head.kept_open():
        for _ in range(3):
            log.append([host_event()])
            assert waiting.wait(GIVE_UP_S)
        assert not seen.has(HintKind.LOG, within_s=QUIET_S)
        another.append([host_event()])
        assert told(seen, HEAD_NAME)


def test_a_head_that_is_deleted_and_made_again_is_followed(log: EventLog, seen: Seen) -> None:
    log.append([host_event()])
    assert told(seen)
    log.path.with_name(HEAD_NAME).unlink()
    assert told(seen)
    for _ in range(3):
        log.append([host_event()])
        assert told(seen)


def test_a_commit_whose_head_cannot_be_noted_is_found_later(log: EventLog, seen: Seen) -> None:
    log.append([host_event()])
    assert told(seen)
    head = log.path.with_name(HEAD_NAME)
    head.unlink()
    head.mkdir()
    seen.forget()
    log.append([host_event()])
    assert told(seen, LOG_NAME)

"""The records that a running reconciler keeps in memory, against those of the log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.known import Known
from statemachine.machine import Trigger
from tests.unit.builders import Stage


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


@pytest.fixture
def known(stage: Stage) -> Known:
    stage.live("sb-1")
    stage.live("sb-2")
    made = Known()
    made.update(made.news(stage.byre.log))
    return made


def names(known: Known) -> list[str]:
    return [record.name for record in known.records()]


def test_what_the_log_has_is_known_once(stage: Stage, known: Known) -> None:
    assert known.records() == stage.byre.log.in_use()
    assert known.news(stage.byre.log) == []


def test_only_what_changed_is_news(stage: Stage, known: Known) -> None:
    stage.command(Trigger.PAUSE, "sb-2")
    stage.live("sb-3")
    news = known.news(stage.byre.log)
    assert sorted(record.name for record in news) == ["sb-2", "sb-3"]
    known.update(news)
    assert known.records() == stage.byre.log.in_use()


def test_a_removed_disk_is_news_and_then_forgotten(stage: Stage, known: Known) -> None:
    stage.command(Trigger.REMOVE, "sb-1")
    assert [record.state for record in known.news(stage.byre.log)] == ["removed"]
    known.update(known.news(stage.byre.log))
    assert names(known) == ["sb-2"]
    assert known.news(stage.byre.log) == []


def test_an_older_record_changes_nothing(stage: Stage, known: Known) -> None:
    older = stage.record("sb-1")
    stage.command(Trigger.PAUSE, "sb-1")
    known.update(known.news(stage.byre.log))
    known.update([older])
    assert known.records() == stage.byre.log.in_use()


def test_a_name_that_is_used_again_is_in_use(stage: Stage, known: Known) -> None:
    stage.command(Trigger.REMOVE, "sb-1")
    known.update(known.news(stage.byre.log))
    stage.live("sb-1")
    known.update(known.news(stage.byre.log))
    assert names(known) == ["sb-1", "sb-2"]

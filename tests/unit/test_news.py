"""What a running reconciler reads of the log, and what it need not read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.api import Byre
from reconciler.known import Known
from reconciler.news import News
from statemachine.commits import Commit
from statemachine.head import HEAD_NAME
from tests.unit.builders import BASE, Stage
from tests.unit.events_made import host_event


class Told:
    """A root that a reconciler works on, and a second opener of it that others are."""

    def __init__(self, folder: Path) -> None:
        self.stage = Stage(folder)
        self.log = self.stage.byre.log
        self.known = Known()
        self.news = News(self.log, self.known, self.known.update)
        self.taken: list[bool] = []
        self.log.on_commit = self._take_in
        self.others = Byre(self.stage.byre.root.path, kernel=self.stage.kernel)

    def _take_in(self, commit: Commit) -> None:
        self.taken.append(self.news.take_in(commit))

    def is_any(self) -> tuple[bool, bool]:
        return self.news.is_any_by_the_head(), self.news.is_any()

    def head(self) -> str:
        return self.log.path.with_name(HEAD_NAME).read_text()

    def put_head(self, text: str) -> None:
        self.log.path.with_name(HEAD_NAME).write_text(text)

    def close(self) -> None:
        self.others.close()
        self.stage.close()


@pytest.fixture
def told(folder: Path) -> Iterator[Told]:
    with contextlib.closing(Told(folder)) as made:
        made.log.append([host_event()])
        made.news.read()
        made.taken.clear()
        yield made


def test_what_others_declare_is_news_once(told: Told) -> None:
    assert told.is_any() == (False, False)
    told.others.ensure("sb-1", base=BASE)
    assert told.is_any() == (True, True)
    assert told.news.read() == ["sb-1"]
    assert [record.name for record in told.known.records()] == ["sb-1"]
    assert told.is_any() == (False, False)
    assert told.news.read() == []


def test_what_was_there_at_the_beginning_is_no_news(told: Told) -> None:
    """A log may be of a year, and all disks are looked at in the beginning."""
    told.others.ensure("sb-1", base=BASE)
    told.news.begin()
    assert told.is_any() == (False, False)
    assert told.news.read() == []
    told.others.ensure("sb-2", base=BASE)
    assert told.news.read() == ["sb-2"]


def test_our_own_commits_are_taken_in_and_no_news(told: Told) -> None:
    told.others.ensure("sb-1", base=BASE)
    told.news.read()
    told.stage.reconciler.reconcile("sb-1")
    assert told.taken == [True, True, True]
    assert told.is_any() == (False, False)
    assert told.known.records() == [told.others.get("sb-1")]


def test_what_we_declare_ourselves_is_read(told: Told) -> None:
    told.stage.declare("sb-1")
    assert told.taken == [False]
    assert told.news.read() == ["sb-1"]


def test_a_commit_of_our_own_right_after_one_of_others_tells_of_that(told: Told) -> None:
    told.others.ensure("sb-1", base=BASE)
    told.log.append([host_event()])
    assert told.taken == [False]
    assert told.news.read() == ["sb-1"]
    told.log.append([host_event()])
    assert told.taken == [False, True]


def test_others_that_note_theirs_late_tell_nothing_new(told: Told) -> None:
    told.others.ensure("sb-1", base=BASE)
    late = told.head()
    told.log.append([host_event()])
    assert told.news.read() == ["sb-1"]
    told.put_head(late)
    assert not told.news.is_any_by_the_head()


def test_a_commit_that_nobody_noted_is_found_in_the_log_itself(told: Told) -> None:
    before = told.head()
    told.others.ensure("sb-1", base=BASE)
    told.put_head(before)
    assert told.is_any() == (False, True)


def test_a_head_that_cannot_be_read_is_a_reason_to_read_the_log(told: Told) -> None:
    told.put_head("nonsense")
    assert told.news.is_any_by_the_head()
    told.log.path.with_name(HEAD_NAME).unlink()
    assert told.news.is_any_by_the_head()

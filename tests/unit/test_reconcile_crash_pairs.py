"""The process dies at a commit of the log, or twice: once more while it recovers.

In CI each scenario takes every first point and every second one after it, dying after the change;
HYPOTHESIS_PROFILE=long also dies before it, in all four combinations.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from reconciler.kernel.sim import SimCrash
from reconciler.kernel.sim.faults import When
from statemachine.events import Event, NewEvent
from tests.unit.builders import Stage
from tests.unit.test_reconcile_crashes import SCENARIOS, count_points, prepared

NAMES = [name for name in SCENARIOS if name != "whole-way-up"]
WHENS: tuple[When, ...] = ("before", "after")
PAIRS = (
    tuple(itertools.product(WHENS, WHENS))
    if os.environ.get("HYPOTHESIS_PROFILE") == "long"
    else (("after", "after"),)
)
SECOND_MAX = 40
"""More changes than any recovery makes; a bound, not a target."""


class LogCrash(BaseException):
    """The process died at a commit. A BaseException, so that no barrier catches it."""


def dies(stage: Stage) -> bool:
    """Go on until it dies or comes to rest; tell which."""
    try:
        stage.settle()
    except (SimCrash, LogCrash):
        return True
    return False


def recovers(stage: Stage) -> None:
    stage.settle()
    stage.check()
    stage.check_quiet()
    stage.close()


def crash_twice(folder: Path, name: str, points: tuple[int, int], whens: tuple[When, When]) -> bool:
    """Die at a point, and again at a point of the recovery; False when it has no such point."""
    stage = prepared(folder, name, has_dm=True)
    stage.kernel.faults.crash_at(points[0], when=whens[0])
    assert dies(stage)
    stage.kernel.faults.revive()
    stage.kernel.faults.crash_at(stage.kernel.faults.points + points[1], when=whens[1])
    again = False
    try:
        stage.restart()
        again = dies(stage)
    except SimCrash:
        again = True
    stage.kernel.faults.clear()
    stage.restart()
    recovers(stage)
    return again


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_a_crash_while_recovering_from_a_crash_is_made_good(folder: Path, name: str) -> None:
    tried = 0
    for first in range(1, count_points(folder, name, has_dm=True) + 1):
        for whens in PAIRS:
            for second in range(1, SECOND_MAX):
                if not crash_twice(folder, name, (first, second), whens):
                    break
                tried += 1
    assert tried > 0


class Commits:
    """Counts the commits of a log, and dies before or after one of them."""

    def __init__(self, stage: Stage, at: int, when: When) -> None:
        self.count = 0
        self._at, self._when = at, when
        self._append = stage.byre.log.append
        stage.byre.log.append = self.append  # type: ignore[method-assign]

    def append(self, events: Sequence[NewEvent]) -> list[Event]:
        self.count += 1
        if self.count == self._at and self._when == "before":
            raise LogCrash
        stored = self._append(events)
        if self.count == self._at:
            raise LogCrash
        return stored


def count_commits(folder: Path, name: str) -> int:
    stage = prepared(folder, name, has_dm=True)
    commits = Commits(stage, -1, "after")
    stage.settle()
    stage.close()
    return commits.count


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("name", NAMES)
def test_a_crash_at_any_commit_is_made_good(folder: Path, name: str, when: When) -> None:
    commits = count_commits(folder, name)
    assert commits > 1
    for at in range(1, commits + 1):
        stage = prepared(folder, name, has_dm=True)
        Commits(stage, at, when)
        assert dies(stage)
        stage.restart()
        recovers(stage)

"""As many workers go on at once as there is use for, and none waits for one that hangs."""

from __future__ import annotations

import contextlib
import threading

from reconciler.clock import FakeClock, SystemClock
from reconciler.pace import Pace, own_cpu_s

LIMIT_S = 60.0
"""How long a test waits for what must come."""


class Times:
    """A clock and a CPU clock that are set by hand."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cpu_s = 0.0

    def pace(self, at_most: int) -> Pace:
        """Return a pace by these clocks."""
        return Pace(at_most, self.clock, patience_s=LIMIT_S, cpu_s=lambda: self.cpu_s)

    def a_pass(self, pace: Pace, *, took_s: float, computed_s: float) -> None:
        """Make a pass that nobody goes on beside."""
        with pace.kept():
            self.clock.advance_s(took_s)
            self.cpu_s += computed_s


class Runner:
    """A thread with one pass, which goes on until it is told to end."""

    def __init__(self, pace: Pace) -> None:
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self.has_ended = threading.Event()
        self._pace = pace
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with self._pace.kept():
            self.has_begun.set()
            self.may_end.wait(LIMIT_S)
        self.has_ended.set()

    def end(self) -> bool:
        """Let it end, and tell whether it did."""
        self.may_end.set()
        return self.has_ended.wait(LIMIT_S)


def test_one_goes_on_until_it_is_known_what_passes_are_like() -> None:
    pace = Pace(4, SystemClock(), patience_s=LIMIT_S)
    first = Runner(pace)
    assert first.has_begun.wait(LIMIT_S)

    second = Runner(pace)

    assert not second.has_begun.wait(0.05)
    assert first.end()
    assert second.has_begun.wait(LIMIT_S)
    assert second.end()


def test_passes_that_wait_go_on_together_and_those_that_compute_one_by_one() -> None:
    times = Times()
    pace = times.pace(4)
    found = []
    for computed_s in (0.9, 0.25, 0.05, 0.5):
        for _ in range(60):
            times.a_pass(pace, took_s=1.0, computed_s=computed_s)
        found.append(pace.at_once)

    assert found == [1, 2, 4, 1]


def test_a_pass_with_others_beside_it_teaches_nothing() -> None:
    times = Times()
    pace = times.pace(2)
    times.a_pass(pace, took_s=1.0, computed_s=0.0)
    assert pace.at_once == 2

    beside = Runner(pace)
    assert beside.has_begun.wait(LIMIT_S)
    times.a_pass(pace, took_s=100.0, computed_s=100.0)
    assert beside.end()

    assert pace.at_once == 2


def test_one_that_hangs_is_passed_by() -> None:
    pace = Pace(1, SystemClock(), patience_s=0.01)
    hanging = Runner(pace)
    assert hanging.has_begun.wait(LIMIT_S)

    others = [Runner(pace) for _ in range(3)]

    assert all(each.end() for each in others)
    assert not hanging.has_ended.is_set()
    assert hanging.end()


def test_the_others_go_on_after_one_that_was_passed_by_ends() -> None:
    pace = Pace(1, SystemClock(), patience_s=0.01)
    hanging = Runner(pace)
    assert hanging.has_begun.wait(LIMIT_S)
    beside = Runner(pace)
    assert beside.has_begun.wait(LIMIT_S)

    assert hanging.end()
    assert beside.end()

    assert Runner(pace).end()


def test_the_cpu_time_of_a_thread_is_its_own() -> None:
    before_s = own_cpu_s()
    until_s = before_s + 0.3
    busy = threading.Thread(target=lambda: _compute(0.3), daemon=True)
    busy.start()
    busy.join(LIMIT_S)

    assert before_s <= own_cpu_s() < until_s


def test_an_error_lets_the_next_one_go_on() -> None:
    pace = Pace(1, SystemClock(), patience_s=LIMIT_S)
    thread = threading.Thread(target=_fail, args=(pace,), daemon=True)
    thread.start()
    thread.join(LIMIT_S)

    assert Runner(pace).end()


def _fail(pace: Pace) -> None:
    with contextlib.suppress(ZeroDivisionError), pace.kept():
        assert 1 // 0 == 0


def _compute(for_s: float) -> None:
    began_s = own_cpu_s()
    while own_cpu_s() - began_s < for_s:
        pass

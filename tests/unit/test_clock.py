"""Clocks: the system's agrees with the system, the fake one moves only when it is moved."""

from __future__ import annotations

import threading
import time

import pytest

from reconciler.clock import WAIT_S_MAX, Clock, FakeClock, SystemClock, checked_wait_s

NS_PER_S = 1_000_000_000


def test_the_system_clock_tells_the_system_s_time() -> None:
    clock: Clock = SystemClock()
    before_ns = time.time_ns()
    now_ns = clock.now_ns()
    assert before_ns <= now_ns <= time.time_ns()
    assert clock.monotonic_s() <= clock.monotonic_s()


def test_the_system_clock_waits_until_the_time_has_passed() -> None:
    clock = SystemClock()
    start_s = clock.monotonic_s()
    clock.sleep_s(0.01)
    assert not clock.wait(threading.Event(), 0.01)
    assert clock.monotonic_s() - start_s >= 0.02


def test_the_system_clock_returns_at_once_when_the_event_is_set() -> None:
    event = threading.Event()
    event.set()
    assert SystemClock().wait(event, WAIT_S_MAX)


def test_the_fake_clock_stands_still_until_it_is_advanced() -> None:
    clock = FakeClock(start_ns=5 * NS_PER_S)
    assert (clock.now_ns(), clock.monotonic_s()) == (5 * NS_PER_S, 0.0)
    clock.advance_s(1.5)
    assert (clock.now_ns(), clock.monotonic_s()) == (6_500_000_000, 1.5)


def test_many_small_advances_lose_nothing() -> None:
    clock = FakeClock()
    for _ in range(1000):
        clock.advance_s(0.001)
    assert clock.monotonic_s() == 1.0


def test_a_step_of_the_wall_clock_leaves_the_monotonic_one_alone() -> None:
    clock = FakeClock(start_ns=100 * NS_PER_S)
    clock.step_wall_s(-30)
    assert (clock.now_ns(), clock.monotonic_s()) == (70 * NS_PER_S, 0.0)


def test_a_sleeper_on_the_fake_clock_goes_on_when_its_time_has_come() -> None:
    clock = FakeClock()
    woken = threading.Event()

    def sleep() -> None:
        clock.sleep_s(10)
        woken.set()

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    while clock.sleepers == 0:
        time.sleep(0.001)
    clock.advance_s(9)
    assert not woken.wait(0.05)
    clock.advance_s(1)
    assert woken.wait(5)
    sleeper.join(5)
    assert clock.sleepers == 0


def test_a_condition_on_the_fake_clock_is_woken_by_a_notification() -> None:
    clock = FakeClock()
    condition = threading.Condition()
    results: list[bool] = []

    def wait() -> None:
        with condition:
            results.append(clock.wait(condition, 10))

    waiter = threading.Thread(target=wait)
    waiter.start()
    while waiter.is_alive():
        with condition:
            condition.notify()
        waiter.join(0.001)
    assert results == [True]


def test_a_jumping_fake_clock_sleeps_without_anybody_s_help() -> None:
    clock = FakeClock(autojump=True)
    clock.sleep_s(3600)
    assert not clock.wait(threading.Event(), 60)
    assert clock.monotonic_s() == 3660.0


def test_a_jumping_fake_clock_stays_where_it_is_for_an_event_that_is_set() -> None:
    clock = FakeClock(autojump=True)
    event = threading.Event()
    event.set()
    assert clock.wait(event, 60)
    assert clock.monotonic_s() == 0.0


def test_a_sleeper_whom_nobody_wakes_gives_up() -> None:
    clock = FakeClock(patience_s=0.01)
    with pytest.raises(TimeoutError, match="nobody advanced"):
        clock.sleep_s(1)


@pytest.mark.parametrize("duration_s", [-0.1, WAIT_S_MAX + 1, float("nan"), float("inf")])
def test_a_wait_out_of_bounds_is_refused(duration_s: float) -> None:
    with pytest.raises(ValueError, match="outside of 0 to"):
        checked_wait_s(duration_s)
    with pytest.raises(ValueError, match="outside of 0 to"):
        SystemClock().sleep_s(duration_s)
    with pytest.raises(ValueError, match="outside of 0 to"):
        FakeClock().advance_s(duration_s)

"""Threads that commit for each other: in large groups, and nobody is left waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from statemachine import turns
from statemachine.batch import Request
from statemachine.turns import Turns

GIVE_UP_S = 60.0
THREADS = 16


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GIVE_UP_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def queued(queue: Turns) -> int:
    return len(queue._queue)  # noqa: SLF001


def settled(group: list[Request]) -> None:
    for each in group:
        each.settled = True


def started(count: int, work: Callable[[], None]) -> list[threading.Thread]:
    made = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for each in made:
        each.start()
    return made


def joined(threads: list[threading.Thread]) -> None:
    for each in threads:
        each.join(GIVE_UP_S)
    assert [each for each in threads if each.is_alive()] == []


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody be helped by looking again: who is not woken sleeps for longer than the test."""
    monkeypatch.setattr(turns, "LOOK_AGAIN_S", 10 * GIVE_UP_S)


@pytest.mark.usefixtures("patient")
def test_all_that_came_during_a_commit_are_the_next_one() -> None:
    queue, groups = Turns(), list[int]()

    def commit(group: list[Request]) -> None:
        groups.append(len(group))
        if len(groups) == 1:
            until(lambda: queued(queue) == THREADS - len(group))
        settled(group)

    joined(started(THREADS, lambda: queue.settle(Request([]), commit)))
    assert (len(groups), sum(groups)) == (2, THREADS)


@pytest.mark.usefixtures("patient")
def test_nobody_is_left_waiting_whoever_comes_when() -> None:
    queue, done = Turns(), list[int]()

    def commit(group: list[Request]) -> None:
        done.append(len(group))
        settled(group)

    def work() -> None:
        for number in range(100):
            if number % 10:
                queue.settle(Request([]), commit)
            else:
                with queue.alone():
                    done.append(0)

    joined(started(THREADS, work))
    assert sum(done) == THREADS * 90


@pytest.mark.usefixtures("patient")
def test_who_waits_for_other_work_is_woken_after_it_even_if_it_fails() -> None:
    queue = Turns()
    threads: list[threading.Thread] = []

    def fail() -> None:
        with queue.alone():
            threads.extend(started(THREADS, lambda: queue.settle(Request([]), settled)))
            until(lambda: queued(queue) == THREADS)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    joined(threads)


@pytest.mark.usefixtures("patient")
def test_a_commit_that_is_interrupted_frees_the_turn_and_its_group() -> None:
    queue = Turns()

    def interrupted(group: list[Request]) -> None:
        settled(group)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        queue.settle(Request([]), interrupted)
    joined(started(THREADS, lambda: queue.settle(Request([]), settled)))


def test_whom_nobody_woke_looks_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOOK_AGAIN_S", 0.01)
    queue = Turns()
    monkeypatch.setattr(queue, "_wake_next", lambda: None)
    joined(started(THREADS, lambda: queue.settle(Request([]), settled)))


def test_nobody_goes_on_before_all_that_belongs_to_the_commit_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "LOOK_AGAIN_S", 0.001)
    queue, early = Turns(), list[int]()
    threads: list[threading.Thread] = []

    def commit(group: list[Request]) -> None:
        settled(group)
        time.sleep(0.05)  # many looks
        early.append(sum(not each.is_alive() for each in threads))

    with queue.alone():
        threads += started(2, lambda: queue.settle(Request([]), commit))
        until(lambda: queued(queue) == 2)
    joined(threads)
    assert early == [0]

"""The thread behind a watcher: it sleeps, it wakes, it ends, and it says why it ended."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator

import pytest

from reconciler.watch import thread as thread_module
from reconciler.watch.thread import PollThread
from tests.unit.seen import GIVE_UP_S, QUIET_S


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_the_thread_calls_when_there_is_something_to_read(pipe: tuple[int, int]) -> None:
    called = threading.Event()

    def ready() -> None:
        os.read(pipe[0], 1)
        called.set()

    thread = PollThread("test", pipe[0], ready)
    thread.start()
    assert not called.wait(QUIET_S)
    os.write(pipe[1], b"x")
    assert called.wait(GIVE_UP_S)
    assert thread.stop()
    assert thread.failure == ""


def test_what_is_held_back_is_read_together_and_does_not_hold_up_the_end(
    pipe: tuple[int, int],
) -> None:
    read: list[bytes] = []
    called, asked = threading.Event(), threading.Event()
    hold_s = [0.05]

    def ready() -> None:
        read.append(os.read(pipe[0], 10))
        called.set()

    def hold() -> float:
        if not asked.is_set():
            os.write(pipe[1], b"y")
        asked.set()
        return hold_s[0]

    thread = PollThread("test", pipe[0], ready, hold_s=hold)
    thread.start()
    os.write(pipe[1], b"x")
    assert called.wait(GIVE_UP_S)
    assert read == [b"xy"]
    hold_s[0] = 2 * GIVE_UP_S
    asked.clear()
    os.write(pipe[1], b"x")
    assert asked.wait(GIVE_UP_S)
    assert thread.stop()


def test_the_thread_calls_when_nothing_happened_for_a_while(pipe: tuple[int, int]) -> None:
    called = threading.Event()
    thread = PollThread("test", pipe[0], called.set, lambda: 0.01)
    thread.start()
    assert called.wait(GIVE_UP_S)
    assert thread.stop()


def test_a_failing_system_call_ends_the_thread_with_a_reason(pipe: tuple[int, int]) -> None:
    def ready() -> None:
        raise OSError(5, "Input/output error")

    thread = PollThread("test", pipe[0], ready)
    thread.start()
    os.write(pipe[1], b"x")
    thread._thread.join(GIVE_UP_S)  # noqa: SLF001 - it ends by itself here
    assert thread.failure == "its thread ended: [Errno 5] Input/output error"
    assert thread.stop()


def test_a_descriptor_that_is_closed_ends_the_thread_with_a_reason() -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)
    os.close(read_end)
    thread = PollThread("test", read_end + 1000, lambda: None)
    thread.start()
    thread._thread.join(GIVE_UP_S)  # noqa: SLF001 - it ends by itself here
    assert "Bad file descriptor" in thread.failure
    assert thread.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_mistake_in_the_program_is_not_hidden(pipe: tuple[int, int]) -> None:
    def ready() -> None:
        raise KeyError("a mistake")

    thread = PollThread("test", pipe[0], ready)
    thread.start()
    os.write(pipe[1], b"x")
    thread._thread.join(GIVE_UP_S)  # noqa: SLF001 - it ends by itself here
    assert "mistake in the program" in thread.failure
    assert thread.stop()


def test_a_thread_that_is_held_up_is_left_behind(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_module, "STOP_S", 0.05)
    inside, gate = threading.Event(), threading.Event()

    def ready() -> None:
        inside.set()
        gate.wait(GIVE_UP_S)

    thread = PollThread("test", pipe[0], ready)
    thread.start()
    os.write(pipe[1], b"x")
    assert inside.wait(GIVE_UP_S)
    assert not thread.stop()
    gate.set()
    thread._thread.join(GIVE_UP_S)  # noqa: SLF001 - nobody else can end it now


def test_without_room_for_a_thread_nothing_is_raised(pipe: tuple[int, int]) -> None:
    thread = PollThread("test", pipe[0], lambda: None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        thread.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "cannot be started" in thread.failure
    assert thread.stop()

"""The queue of keys: its five-line contract, one test or more for each line."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from reconciler.clock import WAIT_S_MAX, FakeClock, SystemClock
from reconciler.workqueue import QueueDepth, WorkQueue

GIVE_UP_S = 10.0


def _queue(keys_max: int = 100) -> tuple[WorkQueue[str], FakeClock]:
    clock = FakeClock()
    return WorkQueue(clock, keys_max=keys_max), clock


def _drain(queue: WorkQueue[str]) -> list[str]:
    taken = []
    while (key := queue.get(0)) is not None:
        taken.append(key)
        queue.done(key)
    return taken


def test_a_key_added_a_hundred_times_comes_once() -> None:
    queue, _ = _queue()
    for _ in range(100):
        assert queue.add("sb-1")
    assert len(queue) == 1
    assert _drain(queue) == ["sb-1"]


def test_keys_come_in_the_order_in_which_they_were_added() -> None:
    queue, _ = _queue()
    for key in ("b", "a", "c", "a"):
        queue.add(key)
    assert _drain(queue) == ["b", "a", "c"]


def test_a_key_in_work_does_not_come_again_before_it_is_done() -> None:
    queue, _ = _queue()
    queue.add("sb-1")
    assert queue.get(0) == "sb-1"
    queue.add("sb-1")
    queue.add("sb-1")
    assert queue.get(0) is None
    queue.done("sb-1")
    assert _drain(queue) == ["sb-1"]


def test_a_key_added_while_in_work_goes_to_the_end() -> None:
    queue, _ = _queue()
    queue.add("a")
    assert queue.get(0) == "a"
    queue.add("a")
    queue.add("b")
    queue.done("a")
    assert _drain(queue) == ["b", "a"]


def test_a_key_that_nobody_has_cannot_be_given_back() -> None:
    queue, _ = _queue()
    queue.add("a")
    with pytest.raises(ValueError, match="'a' is not being processed"):
        queue.done("a")


def test_a_delayed_key_comes_when_it_is_due() -> None:
    queue, clock = _queue()
    queue.add_after("a", 5)
    clock.advance_s(4.9)
    assert queue.get(0) is None
    clock.advance_s(0.2)
    assert _drain(queue) == ["a"]


def test_delayed_keys_come_in_the_order_in_which_they_are_due() -> None:
    queue, clock = _queue()
    queue.add_after("late", 3)
    queue.add_after("early", 1)
    queue.add_after("same as early", 1)
    clock.advance_s(3)
    assert _drain(queue) == ["early", "same as early", "late"]


@pytest.mark.parametrize("delays_s", [(5.0, 2.0), (2.0, 5.0)])
def test_of_two_delays_the_earlier_one_wins(delays_s: tuple[float, float]) -> None:
    queue, clock = _queue()
    for delay_s in delays_s:
        queue.add_after("a", delay_s)
    clock.advance_s(2)
    assert _drain(queue) == ["a"]
    clock.advance_s(5)
    assert _drain(queue) == []


def test_a_delay_of_nothing_is_no_delay() -> None:
    queue, _ = _queue()
    queue.add_after("a", 0)
    assert _drain(queue) == ["a"]


def test_adding_now_does_not_wait_for_the_delay() -> None:
    queue, clock = _queue()
    queue.add_after("a", 5)
    queue.add("a")
    assert _drain(queue) == ["a"]
    clock.advance_s(5)
    assert _drain(queue) == ["a"]


def test_a_delay_that_ends_while_the_key_is_in_work_waits_for_done() -> None:
    queue, clock = _queue()
    queue.add("a")
    assert queue.get(0) == "a"
    queue.add_after("a", 1)
    clock.advance_s(2)
    assert queue.get(0) is None
    queue.done("a")
    assert _drain(queue) == ["a"]


def test_a_key_is_in_work_from_its_taking_to_its_return() -> None:
    queue, _ = _queue()
    queue.add("sb-1")
    assert not queue.is_busy
    assert queue.get(0) == "sb-1"
    assert (queue.is_busy, queue.is_in_work("sb-1"), queue.is_in_work("sb-2")) == (
        True,
        True,
        False,
    )
    queue.done("sb-1")
    assert (queue.is_busy, queue.is_in_work("sb-1")) == (False, False)


def test_a_cancelled_delay_never_comes() -> None:
    queue, clock = _queue()
    queue.add_after("a", 1)
    assert queue.cancel_delayed("a")
    assert not queue.cancel_delayed("a")
    clock.advance_s(2)
    assert _drain(queue) == []


def test_a_delay_that_has_ended_cannot_be_cancelled() -> None:
    queue, clock = _queue()
    queue.add_after("a", 1)
    clock.advance_s(1)
    assert not queue.cancel_delayed("a")
    assert _drain(queue) == ["a"]


def test_delays_that_are_set_and_cancelled_for_ever_take_no_room() -> None:
    queue, clock = _queue()
    for _ in range(1000):
        queue.add_after("a", WAIT_S_MAX)
        queue.cancel_delayed("a")
        clock.advance_s(1)
    assert len(queue._delayed._heap) < 100  # noqa: SLF001 - the leak would be nowhere else
    assert queue.depth().delayed == 0


@pytest.mark.parametrize("bad_s", [-1.0, WAIT_S_MAX + 1, float("nan")])
def test_times_out_of_bounds_are_refused(bad_s: float) -> None:
    queue, _ = _queue()
    with pytest.raises(ValueError, match="outside of"):
        queue.add_after("a", bad_s)
    with pytest.raises(ValueError, match="outside of"):
        queue.get(bad_s)
    with pytest.raises(ValueError, match="outside of"):
        queue.wait_idle(bad_s)


def test_a_full_queue_refuses_new_keys_and_says_so() -> None:
    queue, _ = _queue(keys_max=3)
    queue.add("in work")
    assert queue.get(0) == "in work"
    queue.add("ready")
    queue.add_after("delayed", 1)
    assert not queue.add("one more")
    assert not queue.add_after("one more", 1)
    assert [queue.add(key) for key in ("in work", "ready", "delayed")] == [True, True, True]
    assert queue.depth().refused_total == 2


def test_a_queue_for_no_keys_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="holds nothing"):
        WorkQueue[str](FakeClock(), keys_max=0)


def test_the_depth_tells_where_the_keys_are() -> None:
    queue, _ = _queue()
    for key in ("a", "b", "b", "c"):
        queue.add(key)
    queue.add_after("d", 1)
    assert queue.get(0) == "a"
    expected = QueueDepth(ready=2, processing=1, delayed=1, added_total=3, refused_total=0)
    assert queue.depth() == expected


def test_a_queue_that_is_shut_down_takes_nothing_and_gives_out_what_is_ready() -> None:
    queue, clock = _queue()
    queue.add("in work")
    assert queue.get(0) == "in work"
    queue.add("in work")
    queue.add("ready")
    queue.add_after("delayed", 1)
    queue.shut_down()
    queue.shut_down()
    assert queue.shutting_down
    assert [queue.add("new"), queue.add_after("new", 1)] == [False, False]
    clock.advance_s(2)
    queue.done("in work")
    assert _drain(queue) == ["ready", "in work"]
    assert queue.depth().refused_total == 0


def test_a_queue_that_is_shut_down_without_draining_gives_out_nothing() -> None:
    queue, _ = _queue()
    queue.add("in work")
    assert queue.get(0) == "in work"
    queue.add("in work")
    queue.add("ready")
    queue.shut_down(drain=False)
    queue.done("in work")
    assert _drain(queue) == []
    assert queue.wait_idle(0)


def test_idle_is_when_nothing_is_ready_or_in_work() -> None:
    queue, _ = _queue()
    assert queue.wait_idle(0)
    queue.add("a")
    assert not queue.wait_idle(0)
    assert queue.get(0) == "a"
    assert not queue.wait_idle(0)
    queue.done("a")
    queue.add_after("later", 5)
    assert queue.wait_idle(0)


# --- threads ------------------------------------------------------------------------------------


class _Taker(threading.Thread):
    """Takes one key in a thread of its own."""

    def __init__(self, queue: WorkQueue[str], timeout_s: float = WAIT_S_MAX) -> None:
        super().__init__()
        self._queue = queue
        self._timeout_s = timeout_s
        self.taken: str | None = "nothing yet"
        self.start()

    def run(self) -> None:
        self.taken = self._queue.get(self._timeout_s)

    def result(self) -> str | None:
        self.join(GIVE_UP_S)
        assert not self.is_alive()
        return self.taken


def test_a_waiting_worker_is_woken_by_a_key() -> None:
    queue: WorkQueue[str] = WorkQueue(SystemClock())
    taker = _Taker(queue)
    queue.add("a")
    assert taker.result() == "a"


def test_a_waiting_worker_is_woken_by_the_end_of_a_delay() -> None:
    queue: WorkQueue[str] = WorkQueue(SystemClock())
    taker = _Taker(queue)
    queue.add_after("late", 3600)
    queue.add_after("soon", 0.05)
    assert taker.result() == "soon"


def test_a_waiting_worker_is_woken_by_the_advance_of_a_fake_clock() -> None:
    queue, clock = _queue()
    queue.add_after("a", 60)
    taker = _Taker(queue, 3600)
    while clock.sleepers == 0:
        time.sleep(0.001)
    clock.advance_s(60)
    assert taker.result() == "a"


def test_a_waiting_worker_goes_home_when_its_time_is_over() -> None:
    queue, clock = _queue()
    taker = _Taker(queue, 5)
    while clock.sleepers == 0:
        time.sleep(0.001)
    clock.advance_s(5)
    assert taker.result() is None


def test_every_waiting_worker_goes_home_at_shut_down() -> None:
    queue: WorkQueue[str] = WorkQueue(SystemClock())
    takers = [_Taker(queue) for _ in range(4)]
    queue.shut_down()
    assert [taker.result() for taker in takers] == [None] * 4


def test_a_worker_waits_for_a_key_that_another_one_has() -> None:
    queue: WorkQueue[str] = WorkQueue(SystemClock())
    queue.add("a")
    assert queue.get(0) == "a"
    queue.add("a")
    taker = _Taker(queue)
    assert taker.is_alive()
    queue.done("a")
    assert taker.result() == "a"


def test_waiting_for_idle_ends_with_the_last_done() -> None:
    queue: WorkQueue[str] = WorkQueue(SystemClock())
    queue.add("a")
    assert queue.get(0) == "a"
    timer = threading.Timer(0.05, queue.done, ["a"])
    timer.start()
    assert queue.wait_idle(GIVE_UP_S)
    timer.join(GIVE_UP_S)


class _Workshop:
    """Producers count up for each key; workers note the count they saw, and who else was there."""

    def __init__(self, queue: WorkQueue[str], keys: list[str]) -> None:
        self._queue = queue
        self._keys = keys
        self._guard = threading.Lock()
        self._held: Counter[str] = Counter()
        self.wanted: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.held_at_once_max = 0

    def produce(self) -> None:
        for turn in range(200):
            for key in self._keys:
                with self._guard:
                    self.wanted[key] += 1
                self._queue.add_after(key, 0 if turn % 3 else 0.0005)

    def work(self) -> None:
        while (key := self._queue.get(GIVE_UP_S)) is not None:
            with self._guard:
                self._held[key] += 1
                self.held_at_once_max = max(self.held_at_once_max, self._held[key])
                self.seen[key] = self.wanted[key]
            time.sleep(0.0001)
            with self._guard:
                self._held[key] -= 1
            self._queue.done(key)


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(GIVE_UP_S)
        assert not thread.is_alive()


def test_many_workers_never_have_one_key_twice_and_miss_no_change() -> None:
    queue: WorkQueue[str] = WorkQueue(SystemClock())
    keys = [f"sb-{number}" for number in range(5)]
    shop = _Workshop(queue, keys)
    workers = [threading.Thread(target=shop.work) for _ in range(4)]
    producers = [threading.Thread(target=shop.produce) for _ in range(3)]
    for thread in workers + producers:
        thread.start()
    _join(producers)
    while queue.depth().delayed:
        time.sleep(0.001)
    assert queue.wait_idle(GIVE_UP_S)
    queue.shut_down()
    _join(workers)
    assert shop.held_at_once_max == 1
    assert dict(shop.seen) == dict.fromkeys(keys, 600)

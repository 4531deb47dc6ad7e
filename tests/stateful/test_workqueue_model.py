"""The queue against a model of itself so simple that it is right by looking at it."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconciler.clock import FakeClock
from reconciler.workqueue import WorkQueue

KEYS = st.sampled_from(["a", "b", "c", "d"])
SECONDS = st.integers(1, 8)


class QueueModel(RuleBasedStateMachine):
    """Lists and sets in place of heaps and conditions; whole seconds in place of time."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.queue: WorkQueue[str] = WorkQueue(self.clock)
        self.now_s = 0
        self.ready: list[str] = []
        self.again: set[str] = set()
        self.processing: set[str] = set()
        self.due_s: dict[str, int] = {}
        self.shut = False

    def mark(self, key: str) -> None:
        if key in self.processing:
            self.again.add(key)
        elif key not in self.ready:
            self.ready.append(key)

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        assert self.queue.add(key) == (not self.shut)
        if not self.shut:
            self.mark(key)

    @rule(key=KEYS, delay_s=SECONDS)
    def add_after(self, key: str, delay_s: int) -> None:
        assert self.queue.add_after(key, delay_s) == (not self.shut)
        if not self.shut and self.now_s + delay_s < self.due_s.get(key, 10**9):
            # Last of those with the same time, as a dict keeps the place of a replaced key.
            self.due_s.pop(key, None)
            self.due_s[key] = self.now_s + delay_s

    @rule(duration_s=SECONDS)
    def advance(self, duration_s: int) -> None:
        self.clock.advance_s(duration_s)
        self.now_s += duration_s
        for key, due_s in sorted(self.due_s.items(), key=lambda item: item[1]):
            if due_s <= self.now_s:
                del self.due_s[key]
                self.mark(key)

    @rule()
    def get(self) -> None:
        key = self.queue.get(0)
        assert key == (self.ready.pop(0) if self.ready else None)
        if key is not None:
            assert key not in self.processing
            self.processing.add(key)

    @precondition(lambda self: self.processing)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.processing)))
        self.queue.done(key)
        self.processing.remove(key)
        if key in self.again:
            self.again.remove(key)
            self.ready.append(key)

    @rule(key=KEYS)
    def cancel_delayed(self, key: str) -> None:
        assert self.queue.cancel_delayed(key) == (self.due_s.pop(key, None) is not None)

    @rule(drain=st.booleans())
    @precondition(lambda self: self.now_s > 20)
    def shut_down(self, drain: bool) -> None:  # noqa: FBT001 - Hypothesis passes it by name
        self.queue.shut_down(drain=drain)
        self.shut = True
        self.due_s.clear()
        if not drain:
            self.ready.clear()
            self.again.clear()

    @invariant()
    def numbers_agree(self) -> None:
        depth = self.queue.depth()
        expected = (len(self.ready), len(self.processing), len(self.due_s))
        assert expected == (depth.ready, depth.processing, depth.delayed)
        assert self.queue.wait_idle(0) == (not self.ready and not self.processing)


TestQueueModel = QueueModel.TestCase

"""The level-triggered queue of keys between those who notice something and those who work.

The contract, after client-go's util/workqueue (queue.go, delaying_queue.go, doc.go):

- A key says "look at this", never what happened: adding it a hundred times costs one pass.
- A key is with one worker at most; added meanwhile, it comes again after `done`, and not before.
- Keys come in the order in which they became ready; a delayed key becomes ready when it is due.
- A key has one delay at most: of several the earliest wins, and `add` does not wait for it.
- Shut down, the queue takes nothing more, forgets what is delayed and gives out what is ready.

What this module does not do: it counts no attempts (the record does), draws no delays (backoff
does) and starts no threads. In memory only: after a restart a full resync fills it again.
May be imported by reconcile, daemon and cli.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

import attrs

from reconciler.clock import WAIT_S_MAX, Clock, checked_wait_s
from reconciler.duetimes import DueTimes

Key = TypeVar("Key", bound=Hashable)

KEYS_MAX: Final = 100_000
"""How many different keys a queue holds unless told otherwise."""


@attrs.frozen(kw_only=True)
class QueueDepth:
    """How full a queue is, and what went through it since it was made."""

    ready: int
    processing: int
    delayed: int
    added_total: int
    """Keys that became ready; less than the calls of `add`, which is the point of the queue."""
    refused_total: int
    """Keys that were not taken because the queue was full."""


class WorkQueue(Generic[Key]):
    """See the contract at the top. Every method can be called from every thread.

    Args:
        clock: measures delays and timeouts.
        keys_max: how many different keys may be ready, delayed or in work at a time.
    """

    def __init__(self, clock: Clock, *, keys_max: int = KEYS_MAX) -> None:
        if keys_max < 1:
            raise ValueError(f"a queue of {keys_max} keys holds nothing")
        self._clock = clock
        self._keys_max = keys_max
        self._lock = threading.Lock()
        self._due = threading.Condition(self._lock)
        """For who takes keys: one is woken for each key, so that the others sleep on."""
        self._idle = threading.Condition(self._lock)
        """For who waits for the end of all work."""
        self._ready: deque[Key] = deque()
        self._dirty: set[Key] = set()
        self._processing: set[Key] = set()
        self._delayed: DueTimes[Key] = DueTimes()
        self._shutting_down = False
        self._added_total = 0
        self._refused_total = 0

    def add(self, key: Key, *, first: bool = False) -> bool:
        """Mark a key dirty: it will be given out, now or after the worker that has it is done.

        Args:
            key: what to look at.
            first: whether it goes before all others that are ready.

        Returns:
            False when the queue is full or shut down and the key was not taken; a full queue is
            counted in `depth`, and the next resync brings the key back.
        """
        with self._lock:
            if not self._takes(key):
                return False
            self._mark(key, first=first)
            return True

    def add_after(self, key: Key, delay_s: float) -> bool:
        """Add a key when a delay has passed, unless an earlier delay of it is already running.

        Args:
            key: what to look at again.
            delay_s: seconds, 0 to WAIT_S_MAX.

        Returns:
            False when the key was not taken, as in `add`.

        Raises:
            ValueError: the delay is out of range.
        """
        due_s = self._clock.monotonic_s() + checked_wait_s(delay_s)
        with self._lock:
            if not self._takes(key):
                return False
            if delay_s == 0:
                self._mark(key)
            elif self._delayed.put(key, due_s):
                # All waiters: one of them alone might be about to give up.
                self._due.notify_all()
            return True

    def get(self, timeout_s: float) -> Key | None:
        """Take the next ready key; the caller must call `done` with it.

        Args:
            timeout_s: how long to wait for one, in seconds, 0 to WAIT_S_MAX.

        Returns:
            The key; None when the time has passed, or nothing is left after `shut_down`.

        Raises:
            ValueError: the timeout is out of range.
        """
        give_up_s = self._clock.monotonic_s() + checked_wait_s(timeout_s)
        with self._lock:
            while True:
                self._mark_due()
                if self._ready:
                    return self._take()
                remaining_s = give_up_s - self._clock.monotonic_s()
                if self._shutting_down or remaining_s <= 0:
                    return None
                self._clock.wait(self._due, min(remaining_s, self._until_due_s()))

    def done(self, key: Key) -> None:
        """Give a key back; if it was added meanwhile, it is ready again, at the end.

        Raises:
            ValueError: nobody has this key.
        """
        with self._lock:
            if key not in self._processing:
                raise ValueError(f"{key!r} is not being processed")
            self._processing.remove(key)
            if key in self._dirty:
                self._ready.append(key)
                self._due.notify()
            elif not self._dirty and not self._processing:
                self._idle.notify_all()

    def cancel_delayed(self, key: Key) -> bool:
        """Forget the delay of a key, after a success. False if there was none."""
        with self._lock:
            self._mark_due()
            return self._delayed.drop(key)

    def shut_down(self, *, drain: bool = True) -> None:
        """Take nothing more and wake whoever waits. Idempotent.

        Args:
            drain: whether what is ready, and what was added while in work, still comes out.
        """
        with self._lock:
            self._shutting_down = True
            self._delayed = DueTimes()
            if not drain:
                self._ready.clear()
                self._dirty.clear()
            self._due.notify_all()
            self._idle.notify_all()

    def wait_idle(self, timeout_s: float) -> bool:
        """Block until nothing is ready or in work, whatever is delayed; False if time ran out."""
        give_up_s = self._clock.monotonic_s() + checked_wait_s(timeout_s)
        with self._lock:
            while True:
                self._mark_due()
                if not self._dirty and not self._processing:
                    return True
                remaining_s = give_up_s - self._clock.monotonic_s()
                if remaining_s <= 0:
                    return False
                self._clock.wait(self._idle, remaining_s)

    @property
    def shutting_down(self) -> bool:
        """Whether `shut_down` was called."""
        with self._lock:
            return self._shutting_down

    @property
    def is_busy(self) -> bool:
        """Whether somebody has a key, just now."""
        return bool(self._processing)

    def is_in_work(self, key: Key) -> bool:
        """Whether somebody has this key, just now."""
        return key in self._processing

    def depth(self) -> QueueDepth:
        """Return the numbers for metrics, all of one moment."""
        with self._lock:
            self._mark_due()
            return QueueDepth(
                ready=len(self._ready),
                processing=len(self._processing),
                delayed=len(self._delayed),
                added_total=self._added_total,
                refused_total=self._refused_total,
            )

    def __len__(self) -> int:
        """Return how many keys are ready to be taken."""
        return self.depth().ready

    # --- below: the lock is held --------------------------------------------------------------

    def _takes(self, key: Key) -> bool:
        if self._shutting_down:
            return False
        known = key in self._dirty or key in self._processing or key in self._delayed
        held = len(self._dirty) + len(self._processing) + len(self._delayed)
        if known or held < self._keys_max:
            return True
        self._refused_total += 1
        return False

    def _mark(self, key: Key, *, first: bool = False) -> None:
        if key in self._dirty:
            if first and key not in self._processing:
                self._ready.remove(key)
                self._ready.appendleft(key)
            return
        self._dirty.add(key)
        self._added_total += 1
        if key not in self._processing:
            (self._ready.appendleft if first else self._ready.append)(key)
            self._due.notify()

    def _mark_due(self) -> None:
        for key in self._delayed.take_due(self._clock.monotonic_s()):
            self._mark(key)

    def _take(self) -> Key:
        key = self._ready.popleft()
        self._dirty.remove(key)
        self._processing.add(key)
        return key

    def _until_due_s(self) -> float:
        due_s = self._delayed.next_due_s()
        if due_s is None:
            return WAIT_S_MAX
        return max(0.0, due_s - self._clock.monotonic_s())

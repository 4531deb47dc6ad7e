"""Turns at committing: whoever comes first commits for all who wait, and those need no turn.

A thread takes the turn if it is free, and commits its own request with all that are queued. The
others queue theirs and sleep, each on an alarm of its own, until it is settled; one of those who
came meanwhile is woken to be the next. Were they to wait for the lock instead, each would get it
only to find that it was done, and who came with something new would commit that alone.

A thread that is interrupted while it sleeps leaves its request to the others. Whom it should have
woken looks for itself after `LOOK_AGAIN_S`. May be imported by eventlog only.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Final

import attrs

from statemachine.batch import Request

LOOK_AGAIN_S: Final = 0.5
"""How long a thread sleeps at the most; only an interrupt at a bad moment makes it as long."""


@attrs.define(eq=False)
class Waiting:
    """A request, and how its thread is woken."""

    request: Request
    is_done: bool = False
    """Whether all that belongs to its commit has been done; it is settled a moment before."""
    _alarm: queue.SimpleQueue[None] = attrs.field(factory=queue.SimpleQueue)
    """Wakes as an event does, by one call without a lock in Python: a commit wakes dozens."""

    def sleep(self) -> None:
        """Sleep until somebody wakes this thread, or has since it slept last."""
        with contextlib.suppress(queue.Empty):
            self._alarm.get(timeout=LOOK_AGAIN_S)

    def wake(self) -> None:
        """Wake the thread; from any other one."""
        self._alarm.put(None)


class Turns:
    """Who commits, and for whom. Safe to use from several threads."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._queue_lock = threading.Lock()
        self._queue: list[Waiting] = []

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Be the one whose turn it is, for something that is no request."""
        try:
            with self._turn:
                yield
        finally:
            self._wake_next()

    def settle(self, request: Request, commit: Callable[[list[Request]], None]) -> None:
        """Return when a request is settled, by this thread or by another one.

        Args:
            request: what is to be committed.
            commit: commits several requests, and settles each of them whatever happens.
        """
        if self._turn.acquire(blocking=False):
            try:
                self._commit_queued(commit, own=request)
            finally:
                self._turn.release()
                self._wake_next()
            return
        waiting = Waiting(request)
        with self._queue_lock:
            self._queue.append(waiting)
        while not waiting.is_done:
            if not self._turn.acquire(blocking=False):
                waiting.sleep()
                continue
            try:
                self._commit_queued(commit)
            finally:
                self._turn.release()
                self._wake_next()

    def _commit_queued(
        self, commit: Callable[[list[Request]], None], *, own: Request | None = None
    ) -> None:
        group = self._take() if self._queue else []
        requests = [each.request for each in group] if group else []
        if own is not None:
            requests.append(own)
        if not requests:  # another thread had the turn in between, and settled what was here
            return
        try:
            commit(requests)
        finally:
            for each in group:
                each.is_done = True
                each.wake()

    def _take(self) -> list[Waiting]:
        with self._queue_lock:
            group, self._queue = self._queue, []
        return group

    def _wake_next(self) -> None:
        """Wake one who came meanwhile: after the turn is free, so that nobody is overlooked."""
        if not self._queue:
            return
        with self._queue_lock:
            if self._queue:
                self._queue[0].wake()

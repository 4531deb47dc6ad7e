"""Turns at committing: whoever comes first commits for all who wait, and those need no turn.

A thread queues its request and takes the lock if it is free; then it commits all that are queued.
The others sleep, each on an event of its own, until theirs is settled; one of those who came
meanwhile is woken to be the next. Were they to wait for the lock instead, each would get it only to
find that it was done, and who came with something new would commit that alone.

A thread that is interrupted while it sleeps leaves its request to the others. Whom it should have
woken looks for itself after `LOOK_AGAIN_S`. May be imported by eventlog only.
"""

from __future__ import annotations

import contextlib
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
    woken: threading.Event = attrs.field(factory=threading.Event)
    is_done: bool = False
    """Whether all that belongs to its commit has been done; it is settled a moment before."""


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
        waiting = Waiting(request)
        with self._queue_lock:
            self._queue.append(waiting)
        while not waiting.is_done:
            if not self._turn.acquire(blocking=False):
                waiting.woken.wait(LOOK_AGAIN_S)
                waiting.woken.clear()
                continue
            try:
                self._commit_queued(commit)
            finally:
                self._turn.release()
                self._wake_next()

    def _commit_queued(self, commit: Callable[[list[Request]], None]) -> None:
        with self._queue_lock:
            group, self._queue = self._queue, []
        if not group:  # another thread had the turn in between, and settled what was here
            return
        try:
            commit([each.request for each in group])
        finally:
            for each in group:
                each.is_done = True
                each.woken.set()

    def _wake_next(self) -> None:
        """Wake one who came meanwhile: after the turn is free, so that nobody is overlooked."""
        with self._queue_lock:
            if self._queue:
                self._queue[0].woken.set()

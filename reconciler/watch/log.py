"""Hints of new commits: a thread that follows the log of one root.

By the notice that each commit leaves in `<root>/head`; see `follow` for what happens without one.
May be imported by cli and demo.
"""

from __future__ import annotations

import select
from pathlib import Path

from reconciler.clock import Clock
from reconciler.watch.follow import RECHECK_S, LogFollower
from reconciler.watch.hint import Hint, HintKind, Hold, Wake, at_once
from reconciler.watch.thread import EpollThread
from statemachine.head import HEAD_NAME


class LogWatcher:
    """A `Watcher` on the log at a path."""

    name = "log"

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._follower: LogFollower | None = None
        self._epoll: select.epoll | None = None
        self._thread: EpollThread | None = None
        self._attended = 0

    @property
    def unavailable(self) -> str:
        """Why it sees nothing. Without inotify it looks each few seconds instead."""
        return self._thread.failure if self._thread else ""

    def start(self, wake: Wake, hold_s: Hold = at_once) -> None:  # noqa: ARG002 - others wait for it
        """See `Watcher.start`."""
        self._follower = follower = LogFollower(self._path, self._clock, others_only=True)
        self._epoll = epoll = select.epoll()

        noted = Hint(source=self.name, kind=HintKind.LOG, name=HEAD_NAME)
        written = Hint(source=self.name, kind=HintKind.LOG, name=self._path.name)

        def ready(_: list[int]) -> None:
            if follower.look():
                wake(noted if follower.was_noted else written)
            self._attend(epoll, follower)

        self._attend(epoll, follower)
        self._thread = EpollThread("byre-log", epoll, ready, lambda: RECHECK_S)
        self._thread.start()

    def stop(self) -> None:
        """See `Watcher.stop`."""
        thread, self._thread = self._thread, None
        if thread is not None and thread.stop() and self._follower is not None:
            self._follower.close()
            if self._epoll is not None:
                self._epoll.close()

    def _attend(self, epoll: select.epoll, follower: LogFollower) -> None:
        """Wait for the descriptor that the follower has now; one that is closed is left out."""
        descriptor = follower.fileno()
        if descriptor is not None and self._attended != follower.watches:
            epoll.register(descriptor, select.EPOLLIN)
            self._attended = follower.watches

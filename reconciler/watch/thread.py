"""The one thread behind a watcher: it sleeps in poll(2) until its descriptor or `stop` wakes it.

What this module does not do: it knows nothing of hints. An OSError from the watcher's own code
ends the watching and becomes a reason in words; any other exception is a mistake in the program:
it is left to `threading.excepthook`, and the reason says that the thread is gone.
May be imported by `reconciler.watch` only.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable
from typing import Final

from reconciler.watch.hint import Hold, at_once

STOP_S: Final = 5.0
"""How long `stop` waits for the thread: for one call of `ready` and what `wake` does in it."""


class PollThread:
    """Calls `ready` whenever a descriptor can be read, and when nothing happened for a while.

    Args:
        name: the thread's name.
        descriptor: what to wait for; it must not block and stays the caller's.
        ready: called in the thread; reads what there is, perhaps nothing, without waiting.
        idle_s: returns after how many seconds without anything `ready` is called all the same;
            None is never. Asked before each wait.
        hold_s: how long to leave unread what there is; asked when there is something.
    """

    def __init__(
        self,
        name: str,
        descriptor: int,
        ready: Callable[[], None],
        idle_s: Callable[[], float | None] = lambda: None,
        *,
        hold_s: Hold = at_once,
    ) -> None:
        self._descriptor = descriptor
        self._ready = ready
        self._idle_s = idle_s
        self._hold_s = hold_s
        self._stopping = False
        self._failure = ""
        self._stop_pipe: tuple[int, int] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def failure(self) -> str:
        """Why the thread ended by itself; "" while it runs or when it was stopped."""
        return self._failure

    def start(self) -> None:
        """Start the thread; when the system has no room for one, `failure` says so."""
        try:
            self._stop_pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self._thread.start()
        except (OSError, RuntimeError) as error:
            self._failure = f"its thread cannot be started: {error}"

    def stop(self) -> bool:
        """End the thread; False if it did not end within STOP_S and was left behind.

        In that case the descriptor must stay open, or the thread would read from another one
        that got the same number. Called once, and not from the thread itself.
        """
        if self._stop_pipe is None:
            return True
        self._stopping = True
        os.write(self._stop_pipe[1], b"x")
        if self._thread.ident is not None:
            self._thread.join(STOP_S)
        if self._thread.is_alive():
            return False
        for descriptor in self._stop_pipe:
            os.close(descriptor)
        return True

    def _run(self) -> None:
        failure = "its thread ended by a mistake in the program"
        try:
            self._poll()
            failure = ""
        except OSError as error:
            failure = f"its thread ended: {error}"
        finally:
            self._failure = failure

    def _poll(self) -> None:
        assert self._stop_pipe is not None
        stop, poll = select.poll(), select.poll()
        for each in (stop, poll):
            each.register(self._stop_pipe[0], select.POLLIN)
        poll.register(self._descriptor, select.POLLIN)
        while not self._stopping:
            idle_s = self._idle_s()
            happened = dict(poll.poll(None if idle_s is None else idle_s * 1000))
            if happened.get(self._descriptor, 0) & select.POLLNVAL:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            if self._descriptor in happened and (hold_s := self._hold_s()):
                stop.poll(hold_s * 1000)
            if not self._stopping:
                self._ready()


class EpollThread(PollThread):
    """The same for many descriptors, which may come and go while it runs.

    Args:
        name: the thread's name.
        epoll: what to wait with; it stays the caller's. Used directly and not through another
            poll, as a file of /proc tells of a change once, to whoever asks first.
        ready: is given the descriptors in which something happened, perhaps none.
        idle_s: as for `PollThread`.
    """

    def __init__(
        self,
        name: str,
        epoll: select.epoll,
        ready: Callable[[list[int]], None],
        idle_s: Callable[[], float | None],
    ) -> None:
        super().__init__(name, epoll.fileno(), lambda: None, idle_s)
        self._epoll = epoll
        self._take = ready

    def _poll(self) -> None:
        assert self._stop_pipe is not None
        self._epoll.register(self._stop_pipe[0], select.EPOLLIN)
        while not self._stopping:
            happened = [descriptor for descriptor, _ in self._epoll.poll(self._idle_s())]
            if not self._stopping:
                self._take(happened)

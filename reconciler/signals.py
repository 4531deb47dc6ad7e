"""SIGTERM, SIGINT and SIGHUP as words to a thread of their own, whichever thread the kernel picks.

A Python handler could interrupt a thread that holds the very lock that the handler needs. And
blocking them everywhere is not in our power: a library may have made threads before we were asked
(the linear algebra below NumPy does when it is imported), and the kernel gives a signal to any
thread that lets it through. So the handler is the interpreter's own, which does no more than write
the number to a socket, and a thread reads it from there.

May be imported by the daemon only.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final

SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_END: Final = 0
"""No signal has this number: what ends the thread."""


@contextlib.contextmanager
def told(tell: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Have `SIGNALS` told to `tell`, in a thread of its own; main thread only.

    All is as it was before when the block has ended.
    """
    reading, writing = socket.socketpair()
    thread = threading.Thread(target=_take, args=(reading, tell), name="byre-signals", daemon=True)
    with reading, writing:
        writing.setblocking(False)  # noqa: FBT003 - the standard library's own
        handlers = {each: signal.signal(each, _ignore) for each in SIGNALS}
        wakeup = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        # Our own threads get none, so that none of their system calls is interrupted.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        thread.start()
        try:
            yield
        finally:
            writing.send(bytes([_END]))
            thread.join()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            signal.set_wakeup_fd(wakeup)
            for each, handler in handlers.items():
                signal.signal(each, handler)


def _take(reading: socket.socket, tell: Callable[[signal.Signals], None]) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    while True:
        for number in reading.recv(64):
            if number == _END:
                return
            if number in SIGNALS:
                tell(signal.Signals(number))


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing: the interpreter has written the number to the socket before."""

"""Ctrl-C and SIGTERM for commands that must clean up: they end the work, never the cleaning up."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from reconciler.cli import say


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end a `with` block as Ctrl-C does, and neither of them its cleaning up."""

    def end(number: int, _frame: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)
        # In the middle of a print nothing else can be printed, and less is said.
        with contextlib.suppress(RuntimeError):
            say.error(f"ended by {signal.Signals(number).name}; cleaning up")
        sys.exit(128 + number)

    before = {each: signal.signal(each, end) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)

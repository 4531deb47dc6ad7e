"""A reconciler at work in a thread of this process: for what is to be had from the daemon itself.

On a real host or a simulated one, as the root was opened. Its log lines are thrown away. May be
imported by the package only.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator

import structlog

from reconciler.api import Byre
from reconciler.bench.results import BenchFailed
from reconciler.bench.stopwatch import Busy, others_cpu_s, until, until_quiet
from reconciler.daemon import Daemon
from reconciler.logs import LogFormat, configure
from statemachine.events import EventType


class Threaded:
    """The reconciler of an open root, in a thread. Watches nothing but the log."""

    def __init__(self, byre: Byre) -> None:
        self._byre = byre
        self._daemon = Daemon(byre)
        self._after = byre.log.last_seq()
        self._thread = threading.Thread(target=self._daemon.run, name="byre-bench", daemon=True)

    def start(self) -> None:
        """Start the reconciler and wait until it is at work and at rest."""
        self._thread.start()
        until(self._has_started, "the reconciler is at work")
        until_quiet(others_cpu_s)

    def stop(self) -> None:
        """End it, after what is in flight."""
        self._daemon.stop("the bench is over")
        self._thread.join()

    def resync(self) -> Busy:
        """Have the host surveyed, as when that is due; returns what it cost."""
        self._daemon.resync()
        return until_quiet(others_cpu_s, quiet_s=1.0)

    def _has_started(self) -> bool:
        if not self._thread.is_alive():
            raise BenchFailed("the reconciler ended")
        news = self._byre.log.events(after=self._after)
        return any(event.type == EventType.RECONCILER_STARTED for event in news)


@contextlib.contextmanager
def at_work(byre: Byre) -> Iterator[Threaded]:
    """Have a reconciler at work on an open root for the length of a `with` block."""
    before = structlog.get_config()
    configure(LogFormat.TEXT, stream=io.StringIO())
    made = Threaded(byre)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        structlog.configure(**before)

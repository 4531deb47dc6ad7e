"""Looks at what was done: a little after each pass, for many disks at once where there are many.

A look right after a transition would be early, as what the kernel tells of it is still to come; and
somebody waits for the disk, or for the worker. So a disk that has come to rest, and one of which
something was told in the meantime, is noted here and looked at when that is over, or later as long
as other disks wait for a worker; but not for ever.

What this module does not do: it looks at nothing. Safe for several threads; may be imported by
daemon.
"""

from __future__ import annotations

import threading
from typing import Final

from reconciler.clock import Clock
from reconciler.duetimes import DueTimes
from reconciler.onward import LOOK_AFTER_S

PATIENCE_S: Final = 2.0
"""How long a look that is due waits for disks that want something done."""
PASSES_MAX: Final = 4
"""Up to so many disks each get a pass of their own, which is the better look."""
SHARE_MIN: Final = 0.1
"""Above it, one survey of the host is less work than a pass for each disk that is due."""


class LateLooks:
    """Which disks are to be looked at, and when."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._due: DueTimes[str] = DueTimes()

    def add(self, name: str) -> None:
        """Note a disk that is to be looked at in `LOOK_AFTER_S`, or sooner if it was so before."""
        due_s = self._clock.monotonic_s() + LOOK_AFTER_S
        with self._lock:
            self._due.put(name, due_s)

    def take(self, *, others_wait: bool) -> list[str]:
        """Return the disks whose time has come, and forget them.

        Args:
            others_wait: whether disks wait for a worker: then only those that have waited long.
        """
        now_s = self._clock.monotonic_s()
        with self._lock:
            return self._due.take_due(now_s - PATIENCE_S if others_wait else now_s)

    def __len__(self) -> int:
        """Return how many disks are noted."""
        with self._lock:
            return len(self._due)


def are_for_a_survey(due: int, known: int) -> bool:
    """Tell whether the disks that are due are so many that one survey looks at them with less work.

    Args:
        due: how many there are.
        known: how many disks there are in all, as a survey lists them all.
    """
    return due > max(PASSES_MAX, SHARE_MIN * known)

"""How many workers go on at once: as many as there is use for, by what their passes were like.

Python runs one thread at a time. Where a pass mostly waits for the kernel and for storage, several
at once are faster. Where it mostly computes, each system call hands the interpreter to another one
that wants it, and it is got back by a fight: in a virtual machine without hardware's help four
workers took twice the time of one. So a pass that had nobody beside it tells which share of its
time it computed, and as many are let go on at once as together compute for two thirds of the time:
one where a pass computes for more than a third of it, all of them where it hardly does.

It is a pace and no lock: it protects nothing, and nobody may rely on being alone. When nothing has
moved for `PATIENCE_S`, one more goes on beside whoever hangs. May be imported by workers and tests.
"""

from __future__ import annotations

import contextlib
import resource
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import attrs

from reconciler.clock import Clock

PATIENCE_S: Final = 1.0
"""Longer than a pass takes that computes all the time; then a pass hangs in the kernel."""
_BUSY_AT_MOST: Final = 2 / 3
"""For which share of the time those that go on at once may compute, all together."""
_KEPT: Final = 0.9
"""How much of what was learned is left after one more pass: it is of the last ten or so."""


def own_cpu_s() -> float:
    """Return the CPU time of the calling thread; getrusage(2), RUSAGE_THREAD."""
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return used.ru_utime + used.ru_stime


@attrs.define(eq=False)
class _Pass:
    """One pass: waiting for its turn, or going on."""

    may_go: threading.Event = attrs.field(factory=threading.Event)
    is_alone: bool = True
    """Whether nobody went on beside it so far."""


class Pace:
    """Who goes on and who waits. Safe for several threads.

    Args:
        at_most: how many go on at once where they mostly wait.
        clock: measures how long passes take.
        patience_s: after how many seconds without a begin or an end one hangs.
        cpu_s: the CPU time of the calling thread.
    """

    def __init__(
        self,
        at_most: int,
        clock: Clock,
        *,
        patience_s: float = PATIENCE_S,
        cpu_s: Callable[[], float] = own_cpu_s,
    ) -> None:
        self._at_most = at_most
        self._clock = clock
        self._patience_s = patience_s
        self._cpu_s = cpu_s
        self._lock = threading.Lock()
        self._line: deque[_Pass] = deque()
        self._going: list[_Pass] = []
        """Those that go on, the oldest first, but for those that hang."""
        self._moves = 0
        """How many have begun or ended so far."""
        self._took_s = 0.0
        self._computed_s = 0.0

    @property
    def at_once(self) -> int:
        """How many may go on at once; one until it is known what passes are like."""
        if self._took_s == 0:
            return 1
        share = self._computed_s / self._took_s
        return max(1, int(_BUSY_AT_MOST / max(share, _BUSY_AT_MOST / self._at_most)))

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Make a pass in a `with` block, which begins when there is use for one more."""
        mine = _Pass()
        self._wait_for_turn(mine)
        began_s, began_cpu_s = self._clock.monotonic_s(), self._cpu_s()
        try:
            yield
        finally:
            took_s = self._clock.monotonic_s() - began_s
            self._end(mine, took_s, self._cpu_s() - began_cpu_s)

    def _wait_for_turn(self, mine: _Pass) -> None:
        with self._lock:
            self._line.append(mine)
            self._let_go_on()
            seen = self._moves
        while not mine.may_go.wait(self._patience_s):
            with self._lock:
                if self._going and self._moves == seen:
                    self._going.pop(0)  # it hangs, and counts no more
                    self._let_go_on()
                seen = self._moves

    def _end(self, mine: _Pass, took_s: float, computed_s: float) -> None:
        with self._lock:
            if mine in self._going:
                self._going.remove(mine)
            if mine.is_alone:
                self._took_s = self._took_s * _KEPT + took_s
                self._computed_s = self._computed_s * _KEPT + computed_s
            self._moves += 1
            self._let_go_on()

    def _let_go_on(self) -> None:
        """Let the first in the line go on while there is use for more; the lock is held."""
        while self._line and len(self._going) < self.at_once:
            self._going.append(self._line.popleft())
            self._moves += 1
            for each in self._going if len(self._going) > 1 else ():
                each.is_alone = False
            self._going[-1].may_go.set()

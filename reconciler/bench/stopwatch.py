"""Time and CPU time, as they pass: what all measurements measure with.

The clocks of this package are here and nowhere else. May be imported by the package only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

import attrs

from reconciler.bench.results import BenchFailed
from statemachine.errors import TransientError

Result = TypeVar("Result")

LIMIT_S: Final = 600.0
"""How long anything may take before the measurement is given up; an emulated CPU is slow."""
_BUSY_POLL_S: Final = 0.02
_QUIET_POLL_S: Final = 0.01
_QUIET_SHARE: Final = 0.05
"""A process that uses less of a core than this is at rest: it waits, and wakes for its watches."""


def timed_s(work: Callable[[], object]) -> float:
    """Do some work; returns how long it took, in seconds."""
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def cpu_s(work: Callable[[], object]) -> float:
    """Do some work; returns how much CPU time this thread used for it, in seconds."""
    began_s = time.thread_time()
    work()
    return time.thread_time() - began_s


def cpu_of_s(pid: int) -> float:
    """Return the CPU time that a process has used, all threads, with a resolution of ns.

    By the CPU clock of the process, whose number is made as clock_getcpuclockid(3) makes it:
    MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), include/linux/posix-timers_types.h.
    """
    return time.clock_gettime((~pid << 3) | 2)


def own_thread_cpu_s() -> float:
    """Return the CPU time that the calling thread has used."""
    return time.thread_time()


def others_cpu_s() -> float:
    """Return the CPU time that all threads of this process but the calling one have used."""
    return time.process_time() - time.thread_time()


def sleep_s(duration_s: float) -> None:
    """Do nothing for a while."""
    time.sleep(duration_s)


def now_s() -> float:
    """Return a moment; only differences mean anything."""
    return time.perf_counter()


@attrs.frozen(kw_only=True)
class Busy:
    """How long a process was at work, and how much CPU time that was."""

    wall_s: float
    cpu_s: float


def until_quiet(cpu_s: Callable[[], float], *, quiet_s: float = 0.5) -> Busy:
    """Wait until a process has been at rest for a while; returns what it did before.

    At rest means little CPU time and not none: a process that waits wakes up now and then. What it
    used in that while still counts, as the end of its work may be in it.

    Args:
        cpu_s: the CPU time that it has used.
        quiet_s: how long it must be at rest.

    Raises:
        BenchFailed: it was at work for LIMIT_S.
    """
    began_s, began_cpu_s = now_s(), cpu_s()
    seen: deque[tuple[float, float]] = deque([(began_s, began_cpu_s)])
    while True:
        sleep_s(_QUIET_POLL_S)
        at_s, at_cpu_s = now_s(), cpu_s()
        seen.append((at_s, at_cpu_s))
        while len(seen) > 1 and at_s - seen[1][0] >= quiet_s:
            seen.popleft()
        since_s, since_cpu_s = seen[0]
        used_s = at_cpu_s - since_cpu_s
        if at_s - since_s >= quiet_s and used_s <= _QUIET_SHARE * (at_s - since_s):
            return Busy(wall_s=since_s - began_s + used_s, cpu_s=at_cpu_s - began_cpu_s)
        if at_s - began_s > LIMIT_S:
            share = used_s / (at_s - since_s)
            msg = f"the reconciler did not come to rest within {LIMIT_S:g} s: {share:.0%} of a core"
            raise BenchFailed(msg)


def insist(change: Callable[[], Result]) -> Result:
    """Make a change, again while udev has the device open; the waiting counts as its time."""
    give_up_s = now_s() + LIMIT_S
    while True:
        try:
            return change()
        except TransientError:
            if now_s() > give_up_s:
                raise
            sleep_s(_BUSY_POLL_S)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so; `what` says in the error what never came."""
    give_up_s = now_s() + LIMIT_S
    while not condition():
        if now_s() > give_up_s:
            raise BenchFailed(f"after {LIMIT_S:g} s still not so: {what}")
        sleep_s(_BUSY_POLL_S)

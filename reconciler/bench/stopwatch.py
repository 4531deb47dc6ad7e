"""Time and CPU time, as they pass: what all measurements measure with.

The clocks of this package are here and nowhere else. May be imported by the package only.
"""

from __future__ import annotations

import time
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

    Args:
        cpu_s: the CPU time that it has used.
        quiet_s: how long it must be at rest.

    Raises:
        BenchFailed: it was at work for LIMIT_S.
    """
    began_s = last_busy_s = now_s()
    began_cpu_s = marked_cpu_s = quiet_cpu_s = cpu_s()
    marked_s = began_s
    while now_s() - last_busy_s < quiet_s:
        sleep_s(_QUIET_POLL_S)
        seen_s, seen_cpu_s = now_s(), cpu_s()
        if seen_cpu_s - marked_cpu_s > _QUIET_SHARE * (seen_s - marked_s):
            last_busy_s, quiet_cpu_s = seen_s, seen_cpu_s
        marked_s, marked_cpu_s = seen_s, seen_cpu_s
        if seen_s - began_s > LIMIT_S:
            raise BenchFailed(f"the reconciler did not come to rest within {LIMIT_S:g} s")
    return Busy(wall_s=last_busy_s - began_s, cpu_s=quiet_cpu_s - began_cpu_s)


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

"""Time as something that is handed in: the port, the system's clock, and one that a test moves.

Two times, never mixed: the wall clock (`now_ns`, UTC) goes into records and may jump; the
monotonic one (`monotonic_s`) measures waits and may not. Linux does not count a suspended host in
the monotonic clock (CLOCK_MONOTONIC, clock_gettime(2)), so a backoff is longer by the time asleep.

What this module does not do: it formats no times, knows no time zones and schedules nothing.
May be imported by everything in `reconciler`; `FakeClock` is meant for users' tests as well.
"""

from __future__ import annotations

import threading
import time
from typing import Final, Protocol

WAIT_S_MAX: Final = 7 * 86_400.0
"""The longest single wait; who needs longer waits again."""

_NS_PER_S: Final = 1_000_000_000


class Waitable(Protocol):
    """What can be waited for: a `threading.Event` or a held `threading.Condition`."""

    def wait(self, timeout: float | None = None) -> bool:
        """Block until notified or the timeout in seconds has passed; tell which."""
        ...


class Clock(Protocol):
    """Where time comes from. Every implementation can be used from several threads."""

    def now_ns(self) -> int:
        """Return the wall clock, nanoseconds since 1970 in UTC; it may jump either way."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds since some start; never goes back."""
        ...

    def sleep_s(self, duration_s: float) -> None:
        """Block for a duration in seconds, 0 to WAIT_S_MAX."""
        ...

    def wait(self, waitable: Waitable, timeout_s: float) -> bool:
        """Block until `waitable` is notified; False when `timeout_s` passed before that.

        A False may come early by a rounding error, and a condition may be notified for somebody
        else: the caller looks at its own state and at `monotonic_s` again.
        """
        ...


class SystemClock:
    """The clocks of the operating system."""

    def now_ns(self) -> int:
        """Return CLOCK_REALTIME."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """Return CLOCK_MONOTONIC."""
        return time.monotonic()

    def sleep_s(self, duration_s: float) -> None:
        """Sleep; a signal does not end it early (PEP 475)."""
        time.sleep(checked_wait_s(duration_s))

    def wait(self, waitable: Waitable, timeout_s: float) -> bool:
        """Wait for real."""
        return waitable.wait(checked_wait_s(timeout_s))


class FakeClock:
    """A clock that stands still until it is moved.

    Who sleeps or waits on it blocks until another thread advances it far enough. With
    `autojump=True` the sleeper moves the clock to the end of its own sleep instead, which is
    what a test with a single thread wants.

    Args:
        start_ns: the wall clock at the start; the default is 2026-01-01T00:00:00Z.
        autojump: whether sleeping and waiting move the clock.
        patience_s: real seconds after which a sleeper gives up on being woken.

    Raises:
        TimeoutError: from `sleep_s` and `wait`, when nobody moved the clock for `patience_s`.
    """

    def __init__(
        self,
        *,
        start_ns: int = 1_767_225_600 * _NS_PER_S,
        autojump: bool = False,
        patience_s: float = 10.0,
    ) -> None:
        self._lock = threading.Lock()
        self._wall_ns = start_ns
        self._monotonic_ns = 0
        self._autojump = autojump
        self._patience_s = patience_s
        self._sleepers = 0

    def now_ns(self) -> int:
        """Return the wall clock as it was last set."""
        with self._lock:
            return self._wall_ns

    def monotonic_s(self) -> float:
        """Return the sum of all advances, in seconds."""
        with self._lock:
            return self._monotonic_ns / _NS_PER_S

    @property
    def sleepers(self) -> int:
        """How many threads sleep or wait on this clock: a test advances it when they are there."""
        with self._lock:
            return self._sleepers

    def advance_s(self, duration_s: float) -> None:
        """Move both clocks forward and let sleepers whose time has come go on."""
        step_ns = round(checked_wait_s(duration_s) * _NS_PER_S)
        with self._lock:
            self._monotonic_ns += step_ns
            self._wall_ns += step_ns

    def step_wall_s(self, delta_s: float) -> None:
        """Set the wall clock forward or back, as an administrator or NTP would."""
        with self._lock:
            self._wall_ns += round(delta_s * _NS_PER_S)

    def sleep_s(self, duration_s: float) -> None:
        """Block until the clock was advanced by this much."""
        self.wait(threading.Event(), duration_s)

    def wait(self, waitable: Waitable, timeout_s: float) -> bool:
        """Block until notified, or until the clock was advanced by `timeout_s`."""
        due_s = self.monotonic_s() + checked_wait_s(timeout_s)
        if self._autojump:
            if waitable.wait(0):
                return True
            self.advance_s(timeout_s)
            return False
        self._count_sleepers(1)
        try:
            return self._watch_for(waitable, due_s)
        finally:
            self._count_sleepers(-1)

    def _count_sleepers(self, change: int) -> None:
        with self._lock:
            self._sleepers += change

    def _watch_for(self, waitable: Waitable, due_s: float) -> bool:
        # A condition is held between two looks, so no notification falls between them.
        give_up_s = time.monotonic() + self._patience_s
        while self.monotonic_s() < due_s:
            if waitable.wait(0.001):
                return True
            if time.monotonic() > give_up_s:
                msg = f"nobody advanced the fake clock to {due_s} s in {self._patience_s} real s"
                raise TimeoutError(msg)
        return waitable.wait(0)


def checked_wait_s(duration_s: float) -> float:
    """Return a duration that is safe to wait for.

    Raises:
        ValueError: it is negative, not a number, or longer than WAIT_S_MAX.
    """
    if not 0 <= duration_s <= WAIT_S_MAX:
        raise ValueError(f"a wait of {duration_s} s is outside of 0 to {WAIT_S_MAX:.0f} s")
    return duration_s

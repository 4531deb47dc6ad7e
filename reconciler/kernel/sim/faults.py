"""Scripted misfortune: failing calls, crash points, hooks, and a trace of what was called.

Every call of the port passes through `Faults.around`, or through its two ends alone, `begin` and
`end`, while nothing is set that could befall it. A *change* is a crash point: the process
can die right before it (nothing happened) or right after it (it happened, and nobody was told).
A dead process makes no calls, so after a `SimCrash` every further call raises it again, also from
a `finally` and from other threads, until `revive` says that the next process has started.

Points are counted from 1, failing changes included. To visit all: run once, read `points`, then
for each n and both sides start from anew with `crash_at(n, when=...)`. Questions are counted too,
with the changes, as `calls`: `crash_at_call` dies at any of them. What is no call of the port and
shall be counted with them (a commit of the log) goes through `around` as well.

Deterministic; knows nothing of the simulated kernel. May be imported by `sim` and tests.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeVar

import attrs

from statemachine.errors import ByreError, from_oserror

When = Literal["before", "after"]
Hook = Callable[["Call"], None]
_Result = TypeVar("_Result")

ANY_CHANGE: Final = "*"
"""As the name of a call: every one that changes something."""
TRACE_MAX: Final = 100_000
_NO_ARGUMENTS: Final[Mapping[str, object]] = {}


class SimCrash(BaseException):
    """The process died here. A BaseException, so that no barrier catches it."""

    def __init__(self, call: Call, when: str) -> None:
        what = f"change {call.point}" if call.is_change else f"call {call.number}"
        super().__init__(f"crash {when} {what}: {call}")
        self.call = call
        self.when = when


@attrs.define(eq=False)
class Call:
    """One call of the port, for hooks and for the trace; how it ended is set when it has."""

    number: int
    """Counts all calls, from 1."""
    point: int
    """Counts the changes, from 1; 0 for a question."""
    name: str
    args: tuple[object, ...]
    kwargs: Mapping[str, object] = _NO_ARGUMENTS
    result: object = None
    error: BaseException | None = None

    @property
    def is_change(self) -> bool:
        """Whether it is one that can change something."""
        return self.point > 0

    def is_about(self, text: str) -> bool:
        """Tell whether a text is part of any argument."""
        return not text or any(text in str(each) for each in (*self.args, *self.kwargs.values()))

    def __str__(self) -> str:
        """Print as it would be written: "dm_create(sb-1, BYRE-…)"."""
        named = [f"{name}={value}" for name, value in self.kwargs.items()]
        return f"{self.name}({', '.join([*map(str, self.args), *named])})"


@attrs.define(kw_only=True)
class Fault:
    """A call that fails; made by `Faults.fail`.

    Attributes:
        call: the method's name, or `ANY_CHANGE`.
        error: an errno, sorted into byre's errors as a real one, or an exception to raise as it is;
            `SimCrash` for the end of the process.
        times: how often it fails, None for always.
        after: how many matching calls go well first.
        when: "before" the call does anything, or "after" it has done it all.
        about: only calls with this text in an argument.
        hits: how often it has failed so far.
    """

    call: str
    error: int | BaseException | type[SimCrash]
    times: int | None = 1
    after: int = 0
    when: When = "before"
    about: str = ""
    hits: int = 0

    def strikes(self, call: Call, when: When) -> bool:
        """Tell whether this call fails now, and count it."""
        if when != self.when or not _matches(self.call, self.about, call):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        self.hits += 1
        return True


class Faults:
    """What goes wrong, when, and what was called so far. Thread safe.

    Args:
        trace_max: how many of the last calls are kept.
    """

    def __init__(self, trace_max: int = TRACE_MAX) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._crashes: set[tuple[int, str]] = set()
        self._call_crashes: set[tuple[int, str]] = set()
        self._hooks: list[tuple[str, str, When, Hook]] = []
        self._trace: deque[Call] = deque(maxlen=trace_max)
        self.end: Final[Callable[[Call], None]] = self._trace.append
        """Notes a call that ended, and has its result or its error."""
        self._crash: SimCrash | None = None
        self._calls = 0
        self._points = 0
        self.is_scripted = False
        """Whether anything was set that could befall a call; for most calls nothing was."""

    # --- what a test sets ---------------------------------------------------------------------

    def fail(
        self,
        call: str,
        error: int | BaseException,
        *,
        times: int | None = 1,
        after: int = 0,
        when: When = "before",
        about: str = "",
    ) -> Fault:
        """Let calls fail; see `Fault`. The first fault that matches is used."""
        fault = Fault(call=call, error=error, times=times, after=after, when=when, about=about)
        with self._lock:
            self._faults.append(fault)
            self.is_scripted = True
        return fault

    def crash_at(self, point: int, *, when: When = "after") -> None:
        """Let the process die once, before or after the change of this number."""
        assert point > 0, "points are counted from 1"
        with self._lock:
            self._crashes.add((point, when))
            self.is_scripted = True

    def crash_at_call(self, number: int, *, when: When = "after") -> None:
        """Let the process die once, before or after the call of this number, a question or not."""
        assert number > self._calls, f"call {number} is over: there were {self._calls}"
        with self._lock:
            self._call_crashes.add((number, when))
            self.is_scripted = True

    def crash_in(self, call: str, *, after: int = 0, when: When = "after") -> None:
        """Let the process die once, in the next call of this name but so many."""
        with self._lock:
            self._faults.append(Fault(call=call, error=SimCrash, after=after, when=when))
            self.is_scripted = True

    def hook(self, call: str, run: Hook, *, when: When = "before", about: str = "") -> None:
        """Run something before or after matching calls; it may use the simulation freely.

        Hooks run outside of the simulation's lock, so one may also block.
        """
        with self._lock:
            self._hooks.append((call, about, when, run))
            self.is_scripted = True

    def revive(self) -> None:
        """Say that the next process has started: calls are answered again."""
        with self._lock:
            self._crash = None

    def clear(self) -> None:
        """Forget faults, crash points, hooks and trace, and count points from 1 again."""
        with self._lock:
            self._faults.clear()
            self._crashes.clear()
            self._call_crashes.clear()
            self._hooks.clear()
            self._trace.clear()
            self._crash = None
            self._points = 0
            self.is_scripted = False

    # --- what a test reads --------------------------------------------------------------------

    @property
    def points(self) -> int:
        """How many changes were called so far."""
        return self._points

    @property
    def calls(self) -> int:
        """How many calls there were so far; goes on counting after `clear`."""
        return self._calls

    @property
    def dead(self) -> bool:
        """Whether a crash has happened that nobody revived from."""
        return self._crash is not None

    @property
    def trace(self) -> tuple[Call, ...]:
        """The last calls that ended, oldest first; 100,000 if nothing else was said."""
        # A deque is copied in one step of Python, so a call that ends meanwhile does no harm.
        return tuple(self._trace.copy())

    @property
    def changes(self) -> tuple[Call, ...]:
        """Those of the trace that are no questions."""
        return tuple(call for call in self.trace if call.is_change)

    # --- what the simulation calls ------------------------------------------------------------

    def around(
        self,
        name: str,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        change: bool,
        work: Callable[[], _Result],
    ) -> _Result:
        """Make one call of the port: misfortune before, the work, misfortune after.

        Raises:
            SimCrash: the process died here, or had died before.
            ByreError: what the work or a fault says; an OSError becomes an `ActionError`.
        """
        call = self.begin(name, args, kwargs, change=change)
        self._befall(call, "before")
        try:
            self._strike(call, "before")
            result = work()
            self._strike(call, "after")
        except OSError as error:
            call.error = raised = from_oserror(error, str(call))
            self._end_scripted(call)
            raise raised from error
        except ByreError as error:
            call.error = error
            self._end_scripted(call)
            raise
        call.result = result
        self._end_scripted(call)
        return result

    def begin(
        self, name: str, args: tuple[object, ...], kwargs: Mapping[str, object], *, change: bool
    ) -> Call:
        """Count a call.

        Raises:
            SimCrash: the process had died before.
        """
        with self._lock:
            if self._crash is not None:
                raise SimCrash(self._crash.call, self._crash.when)
            self._calls += 1
            self._points += change
            return Call(self._calls, self._points if change else 0, name, args, kwargs)

    def _end_scripted(self, call: Call) -> None:
        self.end(call)
        self._befall(call, "after")

    def _befall(self, call: Call, when: When) -> None:
        self._run_hooks(call, when)
        self._die_if_due(call, when)

    def _strike(self, call: Call, when: When) -> None:
        with self._lock:
            fault = next((each for each in self._faults if each.strikes(call, when)), None)
        if fault is None:
            return
        if isinstance(fault.error, int):
            raise OSError(fault.error, os.strerror(fault.error))
        if isinstance(fault.error, BaseException):
            raise fault.error
        with self._lock:
            self._crash = SimCrash(call, when)
            raise self._crash

    def _run_hooks(self, call: Call, when: When) -> None:
        with self._lock:
            due = [run for name, about, at, run in self._hooks
                   if at == when and _matches(name, about, call)]  # fmt: skip
        for run in due:
            run(call)

    def _die_if_due(self, call: Call, when: When) -> None:
        with self._lock:
            by_point, by_call = (call.point, when), (call.number, when)
            if by_point not in self._crashes and by_call not in self._call_crashes:
                return
            self._crashes.discard(by_point)
            self._call_crashes.discard(by_call)
            self._crash = SimCrash(call, when)
            raise self._crash


def _matches(name: str, about: str, call: Call) -> bool:
    named = call.is_change if name == ANY_CHANGE else call.name == name
    return named and call.is_about(about)

"""System calls of the reconciler for one disk, counted by strace: each kind, and threads started.

What strace costs is no matter, as nothing is timed. May be imported by the package and tests.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from reconciler.bench import programs
from reconciler.bench.plan import Plan
from reconciler.bench.results import BenchFailed, Measured, Series
from reconciler.bench.stopwatch import until
from reconciler.bench.tended import KEEPER, Tended
from reconciler.bench.yard import Yard

_FEWEST: Final = 0.5
"""Calls made less often for a disk than this are of the watches and timers."""
_STARTING: Final = frozenset({"execve", "execveat"})


def measure(yard: Yard, plan: Plan) -> Mapping[str, Measured]:
    """Count what the creation of a disk takes, and its removal; the mean of a few disks each."""
    tended = Tended(yard)
    tended.create(KEEPER)
    tended.create("first")  # what is done once only is done by now
    tended.until_quiet()
    disks = [f"disk-{number}" for number in range(plan.rounds)]
    series: list[Series] = []
    for what, change in (("create", tended.create), ("remove", tended.remove)):
        plan.tell(f"system calls: {what}")
        before = _Strace(yard, tended.pid, yard.folder / f"{what}.strace")
        for disk in disks:
            change(disk)
        tended.until_quiet()
        counts = before.stop()
        series += _each(what, counts, len(disks))
    tended.remove_all(["first", KEEPER])
    tended.close()
    started = sum(each.median for each in series if each.name.split()[-1] in _STARTING)
    return {"calls": Measured(values={"processes": started}, series=tuple(series))}


class _Strace:
    """strace on a process, from when this is made until `stop`."""

    def __init__(self, yard: Yard, pid: int, output: Path) -> None:
        path = programs.find("strace")
        assert path is not None, "the row is left out without it"
        self._output = output
        words = (path, "-f", "-c", "-U", "calls,name", "-o", str(output), "-p", str(pid))
        self._process = yard.start(*words)
        until(lambda: "attached" in self._process.said(), "strace is attached")

    def stop(self) -> dict[str, int]:
        """Take it away again; returns how often each system call was made."""
        self._process.signal(signal.SIGINT)
        until(lambda: not self._process.is_alive, "strace has ended")
        return parse(self._output.read_text(encoding="utf-8"))


def parse(text: str) -> dict[str, int]:
    """Read the table of `strace -c -U calls,name`: how often each system call was made.

    Raises:
        BenchFailed: it is another table.
    """
    rows = [line.split() for line in text.splitlines()]
    counts = {row[1]: int(row[0]) for row in rows if len(row) == 2 and row[0].isdecimal()}  # noqa: PLR2004
    counts.pop("total", None)
    if not counts:
        raise BenchFailed("strace printed no table of calls", hint="strace 4.26 or newer is needed")
    return counts


def _each(what: str, counts: Mapping[str, int], disks: int) -> list[Series]:
    """Return the calls of one disk, the most frequent first."""
    found = sorted(counts.items(), key=lambda pair: -pair[1])
    return [
        Series(name=f"{what}: {name}", unit="calls a disk", samples=(round(count / disks, 1),))
        for name, count in found
        if count / disks >= _FEWEST or name in _STARTING
    ]

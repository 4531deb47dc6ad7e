"""Many disks on the kernel in memory: what byre itself costs, without a kernel and without udev.

The whole reconciler is at work, in this process: the daemon with its queue and its workers, on a
real log, in RAM. The simulated host's own work is part of the CPU time, as it cannot be taken out;
of the memory it can be, and is. May be imported by the package and tests.
"""

from __future__ import annotations

import contextlib
import gc
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from reconciler.api import Byre
from reconciler.bench.plan import Plan
from reconciler.bench.results import Measured, Series, quantile
from reconciler.bench.stopwatch import others_cpu_s, own_thread_cpu_s, until, until_quiet
from reconciler.bench.threaded import Threaded, at_work
from reconciler.bench.yard import Yard
from reconciler.config import Settings
from reconciler.kernel.sim import SimKernel
from reconciler.outcome import is_there
from reconciler.specs import Sourced
from statemachine.specreader import parse
from statemachine.units import Bytes

BASE: Final = Path("/srv/base.img")
_BASE_BYTES: Final = Bytes(1 << 20)
_TRANSITIONS: Final = 2
"""A disk is attached, then made live."""
_RESYNCS: Final = 3
_RESYNC_S: Final = 86_400.0
_MEMORY_SHARE: Final = 5
"""Memory is measured on this fraction of the disks: to trace allocations takes long."""


class Simulation:
    """A root on a simulated host, with a reconciler at work."""

    def __init__(self, byre: Byre, reconciler: Threaded) -> None:
        self.byre = byre
        self.reconciler = reconciler

    def bring_live(self, disks: int) -> tuple[float, float]:
        """Declare disks and wait until all are live.

        Returns:
            The CPU time of the declaration and of the reconciler, each for all disks.
        """
        specs = parse(
            {"disk": [{"name": f"sb-{number}", "base": str(BASE)} for number in range(disks)]},
            source="the bench",
            folder=Path("/"),
        )
        before_s, own_s = others_cpu_s(), own_thread_cpu_s()
        self.byre.apply([Sourced("the bench", spec) for spec in specs], reason="byre bench")
        declared_s = own_thread_cpu_s() - own_s
        until(self._has_ended, f"{disks} simulated disks are live")
        return declared_s, others_cpu_s() - before_s

    def _has_ended(self) -> bool:
        """Wait for a rest, and tell whether it is the end; a slow disk gives rests, too.

        All records are looked at in a rest only, as that takes the reconciler's time.
        """
        until_quiet(others_cpu_s)
        return all(map(is_there, self.byre.log.records()))


@contextlib.contextmanager
def simulation(root: Path) -> Iterator[Simulation]:
    """Have a reconciler at work on a new root for the length of a `with` block."""
    kernel = SimKernel(trace_max=0)  # nobody reads here which calls there were
    kernel.make_file(BASE, _BASE_BYTES, b"base")
    settings = Settings(resync_s=_RESYNC_S)
    with (
        Byre(root, kernel=kernel, settings=settings, reserve_bytes=0) as byre,
        at_work(byre) as reconciler,
    ):
        yield Simulation(byre, reconciler)


def measure(yard: Yard, plan: Plan) -> Mapping[str, Measured]:
    """Measure the CPU time of transitions and of a resync, and the memory of a disk."""
    disks = plan.simulated
    plan.tell(f"{disks} simulated disks")
    with simulation(yard.in_memory / "sim") as simulated:
        declared_s, moved_s = simulated.bring_live(disks)
        resyncs = [simulated.reconciler.resync().cpu_s / disks for _ in range(_RESYNCS)]
    plan.tell(f"the memory of {disks // _MEMORY_SHARE} simulated disks")
    costs = {
        "a declaration, CPU": [declared_s / disks],
        "a transition, CPU": [moved_s / disks / _TRANSITIONS],
        "a look in a resync, CPU": resyncs,
    }
    values = {
        "transition": moved_s / disks / _TRANSITIONS * 1e3,
        "resync": quantile(resyncs, 50) * 1e6,
        "memory": _memory_bytes(yard, disks // _MEMORY_SHARE) / 1e3,
    }
    series = [
        Series(name=name, unit="µs", samples=tuple(round(each * 1e6, 3) for each in found))
        for name, found in costs.items()
    ]
    note = f"{disks} disks, the simulated host's own CPU time included"
    return {"sim": Measured(values=values, series=tuple(series), notes=(note,))}


def _memory_bytes(yard: Yard, disks: int) -> float:
    """Return what one live disk takes in a reconciler, without the simulated host's part."""
    not_the_host = tracemalloc.Filter(inclusive=False, filename_pattern="*kernel*sim*")
    with simulation(yard.in_memory / "memory") as simulated:
        gc.collect()
        tracemalloc.start()
        try:
            simulated.bring_live(disks)
            gc.collect()
            snapshot = tracemalloc.take_snapshot().filter_traces([not_the_host])
        finally:
            tracemalloc.stop()
    return sum(each.size for each in snapshot.traces) / disks

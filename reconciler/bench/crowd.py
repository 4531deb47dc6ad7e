"""Many disks: all at once, what one more costs among them, a resync, and nothing at all.

May be imported by the package only.
"""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from reconciler.bench import programs
from reconciler.bench.contestants import Contestant, Exec, Floor
from reconciler.bench.life import in_ms
from reconciler.bench.plan import Plan
from reconciler.bench.results import Measured, Point, Series, quantile
from reconciler.bench.stopwatch import Busy, sleep_s, timed_s
from reconciler.bench.tended import KEEPER, Tended
from reconciler.bench.threaded import at_work
from reconciler.bench.yard import Yard, resident_bytes

WORKERS: Final = (1, 2, 4, 8)
"""How many disks the programs are given at once, to find what serves them best."""
_TRIAL_SHARE: Final = 8
"""The best number of workers is found on this fraction of the disks."""
_KB: Final = 1000
_PROGRAMS: Final = "losetup -l, dmsetup table"
_THOROUGH: Final = 3
"""How often a pass is made for each disk; it takes long."""


# --- all at once ---------------------------------------------------------------------------------


def measure_apply(yard: Yard, plan: Plan) -> Mapping[str, Measured]:
    """Measure many disks in one `apply`, until all are live, against programs in parallel."""
    tended, other = Tended(yard), Exec(yard)
    tended.create(KEEPER)
    workers, trials = _best_workers(yard, plan, other)
    rates: dict[str, list[float]] = defaultdict(list)
    for number in range(max(1, plan.rounds // 7)):
        plan.tell(f"{plan.at_once} disks at once, round {number + 1}")
        disks = [f"many-{number}-{disk}" for disk in range(plan.at_once)]
        yard.settle()
        took_s = timed_s(functools.partial(tended.create_all, disks))
        rates["byre"].append(len(disks) / took_s)
        tended.remove_all(disks)
        yard.settle()
        rates["exec"].append(len(disks) / _in_parallel(other.create, disks, workers))
        _in_parallel(other.remove, disks, workers)
    tended.remove(KEEPER)
    tended.close()
    series = [_rate(name, found) for name, found in rates.items()]
    series += [_rate(f"exec, {count} workers", [rate]) for count, rate in trials.items()]
    value = quantile(rates["byre"], 50) / quantile(rates["exec"], 50)
    note = f"exec with {workers} workers, its best"
    return {"apply": Measured(values={"exec": value}, series=tuple(series), notes=(note,))}


def _rate(name: str, found: Sequence[float]) -> Series:
    return Series(name=name, unit="disks/s", samples=tuple(round(each, 3) for each in found))


def _best_workers(yard: Yard, plan: Plan, other: Exec) -> tuple[int, dict[int, float]]:
    """Return the number of workers with which the programs are fastest, and what each gave."""
    rates = {}
    for count in WORKERS:
        disks = [f"trial-{count}-{disk}" for disk in range(max(8, plan.at_once // _TRIAL_SHARE))]
        plan.tell(f"{len(disks)} disks by programs, {count} at once")
        yard.settle()
        rates[count] = len(disks) / _in_parallel(other.create, disks, count)
        _in_parallel(other.remove, disks, count)
    return max(rates, key=lambda count: rates[count]), rates


def _in_parallel(change: Callable[[str], None], disks: Sequence[str], workers: int) -> float:
    """Make the same change to many disks, so many at once; returns how long it took."""
    with ThreadPoolExecutor(workers) as pool:

        def all_of_them() -> None:
            for done in [pool.submit(change, disk) for disk in disks]:
                done.result()

        try:
            return timed_s(all_of_them)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


# --- among many ----------------------------------------------------------------------------------


def measure(yard: Yard, plan: Plan) -> Mapping[str, Measured]:
    """Measure what depends on how many live disks there are."""
    tended, floor = Tended(yard), Floor(yard)
    samples: dict[int, dict[str, list[float]]] = {}
    memory: dict[int, int] = {}
    few = plan.crowd // 10
    live: list[str] = []
    for count in (1, few, plan.crowd * 3 // 10, plan.crowd):
        more = [f"live-{number}" for number in range(len(live), count)]
        plan.tell(f"{count} live disks")
        tended.create_all(more)
        live += more
        yard.settle()
        tended.until_quiet()
        memory[count] = resident_bytes(tended.pid)
        if "scale" in plan.rows:
            samples[count] = _one_more(yard, plan, [floor, tended])
    measured = {}
    if "scale" in plan.rows:
        measured["scale"] = _scale(samples, few, plan.crowd, memory)
    if "idle" in plan.rows:
        measured["idle"] = _idle(plan, tended)
    if "resync" in plan.rows:
        measured["resync"] = _resync(yard, plan, tended)
    plan.tell("removing them")
    tended.remove_all(live)
    tended.close()
    return measured


def _one_more(yard: Yard, plan: Plan, contestants: Sequence[Contestant]) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = defaultdict(list)
    for number in range(plan.rounds):
        for contestant in contestants:
            yard.settle()
            disk = f"more-{number}"
            samples[contestant.name].append(timed_s(functools.partial(contestant.create, disk)))
            yard.settle()
            contestant.remove(disk)
    return samples


def _scale(
    samples: Mapping[int, Mapping[str, list[float]]], few: int, crowd: int, memory: dict[int, int]
) -> Measured:
    points = [
        Point(name=name, disks=count, median_s=round(quantile(found, 50), 6))
        for count, by_name in samples.items()
        for name, found in by_name.items()
    ]
    value = quantile(samples[crowd]["byre"], 50) / quantile(samples[few]["byre"], 50)
    both = {
        f"{name}, {count} live": found
        for count in (few, crowd)
        for name, found in samples[count].items()
    }
    grown_kb = (memory[crowd] - memory[few]) / (crowd - few) / _KB
    notes = (
        f"{crowd} live disks against {few}",
        f"memory of the reconciler: {memory[crowd] / 1e6:.0f} MB, {grown_kb:.1f} KB a disk more",
    )
    return Measured(values={"few": value}, series=in_ms(both), points=tuple(points), notes=notes)


def _resync(yard: Yard, plan: Plan, tended: Tended) -> Measured:
    """Measure a survey of everything, which finds nothing to do; ends the reconciler.

    When a survey is due nobody outside can tell; so a reconciler in this process is told to.
    """
    samples: dict[str, list[float]] = defaultdict(list)
    yard.settle()
    for _ in range(_THOROUGH):
        samples["byre, a pass for each (SIGHUP)"].append(tended.look_at_all().wall_s)
    tended.end()
    with at_work(tended.byre) as reconciler:
        before = tended.traces(os.getpid())
        for number in range(max(3, plan.rounds // 2)):
            plan.tell(f"resync {number + 1}")
            done = reconciler.resync()
            samples["byre"].append(done.wall_s)
            samples["byre, CPU"].append(done.cpu_s)
            samples[_PROGRAMS].append(timed_s(_list_all))
        after = tended.traces(os.getpid())
    values = {
        "programs": quantile(samples["byre"], 50) / quantile(samples[_PROGRAMS], 50),
        "events": float(after.events_since(before)),
        "bytes": float(after.bytes_since(before)),
    }
    note = f"{plan.crowd} live disks"
    return Measured(values=values, series=in_ms(samples), notes=(note,))


def _list_all() -> None:
    for words in (("losetup", "-l"), ("dmsetup", "table")):
        programs.run_unheard((programs.find(words[0]) or words[0], *words[1:]))


def _idle(plan: Plan, tended: Tended) -> Measured:
    """Measure what the reconciler does while nothing happens."""
    plan.tell(f"nothing for {plan.idle_s:g} s")
    tended.until_quiet(quiet_s=2.0)
    before, before_s = tended.traces(tended.pid), tended.cpu_s()
    sleep_s(plan.idle_s)
    spent = Busy(wall_s=plan.idle_s, cpu_s=tended.cpu_s() - before_s)
    after = tended.traces(tended.pid)
    values = {
        "cpu": spent.cpu_s / spent.wall_s * 100,
        "bytes": float(after.bytes_since(before)),
    }
    series = Series(name="byre, CPU", unit="ms", samples=(round(spent.cpu_s * 1e3, 3),))
    note = f"{plan.crowd} live disks, {plan.idle_s:g} s, no resync in them"
    return Measured(values=values, series=(series,), notes=(note,))

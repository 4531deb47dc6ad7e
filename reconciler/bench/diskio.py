"""What reading and writing a live disk costs, by fio: each driver, each chunk size, a plain file.

The disks are made by byre and are used by nobody else. The jobs of one disk follow each other: what
is read untouched, what is written for the first time, what is written again, what is read then.
Each contestant begins with two new disks in each round, one for large blocks in order and one for
small ones at random. May be imported by the package only.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from reconciler.bench import fio
from reconciler.bench.fio import Job
from reconciler.bench.plan import Plan
from reconciler.bench.results import Measured, Series
from reconciler.bench.tended import Alone
from reconciler.bench.yard import Yard
from statemachine.spec import DriverChoice
from statemachine.units import Bytes

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_ROUNDS_SHARE: Final = 7
"""A round of all jobs takes minutes; a row with 20 rounds gets 2 of them."""
_LARGE, _SMALL = 128 * _KIB, 4 * _KIB

IN_ORDER: Final = (
    Job(title="read, untouched", rw="read", block_bytes=_LARGE, is_random=False),
    Job(title="first write", rw="write", block_bytes=_LARGE, is_random=False),
    Job(title="write again", rw="write", block_bytes=_LARGE, is_random=False),
    Job(title="read, written", rw="read", block_bytes=_LARGE, is_random=False),
)
AT_RANDOM: Final = (
    Job(title="random read, untouched", rw="randread", block_bytes=_SMALL, is_random=True),
    Job(title="random first write", rw="randwrite", block_bytes=_SMALL, is_random=True),
    Job(title="random write again", rw="randwrite", block_bytes=_SMALL, is_random=True),
    Job(title="random read, written", rw="randread", block_bytes=_SMALL, is_random=True),
)


@attrs.frozen(kw_only=True)
class Contestant:
    """One way of having a disk; `driver` None is a plain copy of the base, without byre."""

    name: str
    driver: DriverChoice | None
    chunk_kib: int | None = None
    direct_io: bool = False
    persistent: bool = True


CONTESTANTS: Final = (
    Contestant(name="plain file", driver=None),
    Contestant(name="clone", driver=DriverChoice.CLONE),
    Contestant(name="clone, direct_io", driver=DriverChoice.CLONE, direct_io=True),
    Contestant(name="4 KiB", driver=DriverChoice.DM_SNAPSHOT, chunk_kib=4),
    Contestant(
        name="4 KiB, throwaway", driver=DriverChoice.DM_SNAPSHOT, chunk_kib=4, persistent=False
    ),
    Contestant(name="16 KiB", driver=DriverChoice.DM_SNAPSHOT, chunk_kib=16),
    Contestant(name="64 KiB", driver=DriverChoice.DM_SNAPSHOT, chunk_kib=64),
    Contestant(
        name="4 KiB, direct_io", driver=DriverChoice.DM_SNAPSHOT, chunk_kib=4, direct_io=True
    ),
    Contestant(
        name="64 KiB, direct_io", driver=DriverChoice.DM_SNAPSHOT, chunk_kib=64, direct_io=True
    ),
)


def measure(yard: Yard, plan: Plan) -> Mapping[str, Measured]:
    """Measure all jobs on all contestants, round by round."""
    size, small = (16 * _MIB, _MIB) if plan.quick else (256 * _MIB, 16 * _MIB)
    bench = _Bench(yard, _base(yard, size), size)
    contestants = [each for each in CONTESTANTS if bench.is_possible(each)]
    rates: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for number in range(max(1, plan.rounds // _ROUNDS_SHARE)):
        for each in contestants:
            plan.tell(f"IO round {number + 1}: {each.name}")
            for jobs, total in ((IN_ORDER, size), (AT_RANDOM, small)):
                with bench.disk(each) as target:
                    for job in jobs:
                        rate = bench.run(job, target, total=total, seed=number + 1)
                        rates[job.title, each.name, job.unit].append(round(rate, 3))
        contestants.append(contestants.pop(0))
    bench.close()
    titles = {job.title: place for place, job in enumerate((*IN_ORDER, *AT_RANDOM))}
    names = {each.name: place for place, each in enumerate(CONTESTANTS)}
    places = sorted(rates, key=lambda key: (titles[key[0]], names[key[1]]))
    series = [
        Series(name=f"{title}: {name}", unit=unit, samples=tuple(rates[title, name, unit]))
        for title, name, unit in places
    ]
    return {"io": Measured(series=tuple(series), notes=bench.notes(contestants))}


class _Bench:
    """Makes disks, and runs jobs on them."""

    def __init__(self, yard: Yard, base: Path, size: int) -> None:
        self._yard = yard
        self._base = base
        self._size = size
        self._client = Alone(yard, "io")
        self._made = 0
        self._direct = fio.can_be_direct(base)

    def is_possible(self, each: Contestant) -> bool:
        """Tell whether the file system can do what a contestant needs."""
        return self._direct or not each.direct_io

    @contextlib.contextmanager
    def disk(self, each: Contestant) -> Iterator[Path]:
        """Give a new disk for the length of a `with` block: what fio opens."""
        self._made += 1
        name = f"disk-{self._made}"
        if each.driver is None:
            path = self._yard.folder / f"{name}.bare"
            self._yard.kernel.clone_file(self._base, path, Bytes(self._size))
            yield path
            path.unlink()
            return
        self._client.byre.ensure(
            name,
            base=self._base,
            driver=each.driver,
            chunk_size=None if each.chunk_kib is None else each.chunk_kib * _KIB,
            direct_io=each.direct_io,
            persistent=each.persistent,
            reason="byre bench",
        )
        self._client.wait([name])
        yield Path(self._client.byre.get(name).device)
        self._yard.settle()
        self._client.remove(name)

    def run(self, job: Job, target: Path, *, total: int, seed: int) -> float:
        """Run one job with nothing of the disk in the page cache."""
        for path in (self._base, *self._own_files()):
            _forget(path)
        direct = fio.can_be_direct(target)
        return fio.run(job, target, size=self._size, total=total, direct=direct, seed=seed)

    def _own_files(self) -> Iterator[Path]:
        """Yield what the disks of now are stored in."""
        yield from self._yard.folder.glob("*.bare")
        yield from self._client.byre.root.cows.glob("*")

    def notes(self, contestants: list[Contestant]) -> tuple[str, ...]:
        """Return what a reader must know."""
        left_out = [each.name for each in CONTESTANTS if each not in contestants]
        words = (
            f"disks of {self._size // _MIB} MiB; in order by {_LARGE // _KIB} KiB, at random by "
            f"{_SMALL // _KIB} KiB, {fio.DEPTH} requests at once, past the asker's page cache, "
            "synced 16 times on the way; nothing of the disk in the page cache before each job"
        )
        names = "a size is of dm-snapshot's chunks; the plain file is a clone without a loop"
        if not left_out:
            return (words, names)
        return (words, names, f"left out, no direct IO here: {', '.join(left_out)}")

    def close(self) -> None:
        """Close the root."""
        self._client.close()


def _base(yard: Yard, size: int) -> Path:
    """Make a base full of what cannot be guessed: holes would be read for nothing."""
    path = yard.folder / "io-base.img"
    with path.open("xb") as file:
        for _ in range(size // _MIB):
            file.write(os.urandom(_MIB))
        os.fsync(file.fileno())
    return path


def _forget(path: Path) -> None:
    """Have a file written out and dropped from the page cache, so that it is read from the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)

"""What a fork costs: by reflink and by copying, for more data and for a larger disk with the same.

The source is a paused disk with the driver `clone`, so that any host can measure: what is copied
is the disk's own file, whichever driver wrote it. A time is of the call of the API, from a paused
disk to another one in the log, on disk. Where blocks are shared is a btrfs in a loop file.
May be imported by the package only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from reconciler.api import Byre
from reconciler.bench import programs
from reconciler.bench.life import in_ms
from reconciler.bench.plan import Plan
from reconciler.bench.results import BenchFailed, Measured, quantile
from reconciler.bench.stopwatch import LIMIT_S, timed_s
from reconciler.bench.yard import Yard
from reconciler.config import Settings
from statemachine.machine import Desired, Trigger
from statemachine.spec import DriverChoice
from statemachine.units import Bytes

_MIB: Final = 1 << 20
_ROUNDS_SHARE: Final = 2
_MAKE: Final = "mkfs.btrfs"
_FILE_SYSTEMS: Final = Path("/proc/filesystems")


@attrs.frozen(kw_only=True)
class Kind:
    """One disk to fork: how large it is, and how much of it is no hole."""

    name: str
    size_mib: int
    data_mib: int


def missing() -> str:
    """Say what a file system that shares blocks needs and this host has not; "" for nothing."""
    if os.geteuid() != 0:
        return "only root may mount a file system"
    if programs.find(_MAKE) is None:
        return f"{_MAKE} is not installed"
    known = _FILE_SYSTEMS.read_text(encoding="ascii").split()
    return "" if "btrfs" in known else "this kernel has no btrfs (`modprobe btrfs`)"


def kinds(*, quick: bool) -> tuple[Kind, ...]:
    """Return the disks: the second has more data, the third the same as the first and is larger."""
    little, much = (2, 8) if quick else (8, 64)
    small, large = (16, 1024) if quick else (256, 16 * 1024)
    return (
        Kind(name=f"{small} MiB, {little} of data", size_mib=small, data_mib=little),
        Kind(name=f"{small} MiB, {much} of data", size_mib=small, data_mib=much),
        Kind(name=f"{large} MiB, {little} of data", size_mib=large, data_mib=little),
    )


def measure(yard: Yard, plan: Plan) -> Mapping[str, Measured]:
    """Fork each kind of disk, on both file systems, in turn."""
    wanted = kinds(quick=plan.quick)
    samples: dict[str, list[float]] = {}
    copied = yard.folder / "copied"
    copied.mkdir()
    with _sharing(yard, wanted) as shared:
        for how, folder in (("reflink", shared), ("sparse-copy", copied)):
            with contextlib.closing(_Place(yard, folder, how)) as place:
                for kind in wanted:
                    plan.tell(f"forks by {how} of {kind.name}")
                    rounds = max(3, plan.rounds // _ROUNDS_SHARE)
                    samples[f"{how}: {kind.name}"] = place.forks(kind, rounds)
    medians = {name: quantile(found, 50) for name, found in samples.items()}
    first, more, larger = (medians[f"sparse-copy: {kind.name}"] for kind in wanted)
    values = {
        "reflink": max(medians[f"reflink: {kind.name}"] for kind in wanted) * 1e3,
        "data": more / first / (wanted[1].data_mib / wanted[0].data_mib),
        "size": larger / first,
    }
    return {"fork": Measured(values=values, series=in_ms(samples))}


class _Place:
    """A root on one file system."""

    def __init__(self, yard: Yard, folder: Path, how: str) -> None:
        self._folder = folder
        self._how = how
        settings = Settings(device_prefix=f"{yard.prefix}{how}-"[:32])
        self._byre = Byre(folder / "root", kernel=yard.kernel, settings=settings)

    def close(self) -> None:
        """Close the log."""
        self._byre.close()

    def forks(self, kind: Kind, rounds: int) -> list[float]:
        """Make a paused disk, and forks of it one after the other; returns the seconds of each."""
        base = self._folder / "base.img"
        _write(base, kind)
        self._byre.ensure(
            "source", base=base, state=Desired.PAUSED, driver=DriverChoice.CLONE, reason="bench"
        )
        self._wait("source")
        os.sync()  # what the next fork would have to write first is not its own
        took = [timed_s(self._fork) for _ in range(rounds) if self._is_ready()]
        self._remove("source")
        base.unlink()
        return took

    def _fork(self) -> None:
        self._byre.fork("source", ["fork"], state=Desired.PAUSED, reason="bench")

    def _is_ready(self) -> bool:
        """Take the fork of before away; it must have come about as it was meant to."""
        record = self._byre.log.record("fork")
        if record is not None and record.desired is not Desired.REMOVED:
            how = record.parent.how if record.parent else ""
            if how != self._how:
                raise BenchFailed(f"the fork in {self._folder} is by {how}, not by {self._how}")
            self._remove("fork")
        return True

    def _remove(self, disk: str) -> None:
        if self._byre.log.record(disk) is not None:
            self._byre.command([disk], Trigger.REMOVE, reason="bench")
            self._wait(disk)

    def _wait(self, disk: str) -> None:
        [answer] = self._byre.wait([disk], timeout_s=LIMIT_S)
        if not answer.is_there:
            raise BenchFailed(f"{disk}: {answer.message}", hint=answer.hint)


@contextlib.contextmanager
def _sharing(yard: Yard, wanted: tuple[Kind, ...]) -> Iterator[Path]:
    """Mount a file system that shares blocks, for the length of a `with` block."""
    image, at = yard.folder / "sharing.img", yard.folder / "sharing"
    room = 4 * max(kind.data_mib for kind in wanted) + 1024
    with image.open("xb") as file:
        file.truncate(Bytes(room * _MIB).count)
    programs.run(_MAKE, "-q", str(image))
    at.mkdir()
    programs.run("mount", "-o", "loop", str(image), str(at))
    try:
        yield at
    finally:
        programs.run("umount", "--lazy", str(at))


def _write(base: Path, kind: Kind) -> None:
    """Make a base with so much that is no hole, in pieces all over it."""
    step = kind.size_mib // kind.data_mib
    with base.open("xb") as file:
        for number in range(kind.data_mib):
            file.seek(number * step * _MIB)
            file.write(os.urandom(_MIB))
        file.truncate(kind.size_mib * _MIB)
        os.fsync(file.fileno())

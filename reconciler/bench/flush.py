"""Much was written, then the disk is paused: where the time goes, with and without a flush ahead.

The writer is this process and stands for a VMM. *stall* is what its host waits: from the moment it
begins to close the device until the disk is paused. Without a flush ahead the pause is asked for
after the close. With it the pause is asked for while the writer still has the device open, byre
writes the page cache out beside it, and the writer closes when that is done: a guest that is told
to stop takes some seconds, too. May be imported by the package only.
"""

from __future__ import annotations

import functools
import mmap
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from reconciler.bench import fio
from reconciler.bench.life import in_ms
from reconciler.bench.plan import Plan
from reconciler.bench.results import Measured
from reconciler.bench.stopwatch import timed_s, until
from reconciler.bench.tended import KEEPER, Tended
from reconciler.bench.yard import Yard
from statemachine.machine import Trigger
from statemachine.spec import DriverChoice

_MIB: Final = 1 << 20
_PIECE: Final = 4 * _MIB
_ROUNDS_SHARE: Final = 10
_SECTOR: Final = 512


@attrs.frozen(kw_only=True)
class Way:
    """One way to write and to pause."""

    name: str
    direct_io: bool = False
    """Of the disk: its loop goes past the page cache."""
    past_cache: bool = False
    """Of the writer: it opens the device with O_DIRECT."""
    ahead: bool = False
    """Whether the pause is asked for while the writer has the device open."""


WAYS: Final = (
    Way(name="page cache"),
    Way(name="page cache, flush ahead", ahead=True),
    Way(name="page cache, direct_io", direct_io=True),
    Way(name="page cache, direct_io, flush ahead", direct_io=True, ahead=True),
    Way(name="O_DIRECT", past_cache=True),
    Way(name="O_DIRECT, direct_io", past_cache=True, direct_io=True),
)


def measure(yard: Yard, plan: Plan) -> Mapping[str, Measured]:
    """Write much, then pause, in each way in turn."""
    size = (16 if plan.quick else 2048) * _MIB
    base = yard.folder / "flush-base.img"
    with base.open("xb") as file:
        file.truncate(size)
    tended = Tended(yard)
    tended.create(KEEPER)
    ways = [way for way in WAYS if fio.can_be_direct(base) or not way.direct_io]
    samples: dict[str, list[float]] = defaultdict(list)
    for number in range(max(1, plan.rounds // _ROUNDS_SHARE)):
        for way in ways:
            plan.tell(f"{size // _MIB} MiB written, then paused, {number + 1}: {way.name}")
            yard.settle()
            for step, took_s in _once(yard, tended, way, base, f"disk-{number}").items():
                samples[f"{way.name}: {step}"].append(took_s)
    tended.remove(KEEPER)
    tended.close()
    note = (
        f"{size // _MIB} MiB written once, {_PIECE // _MIB} MiB at a time, not synced; "
        "direct_io is the disk's, page cache and O_DIRECT are the writer's"
    )
    return {"flush": Measured(series=in_ms(samples), notes=(note,))}


def _once(yard: Yard, tended: Tended, way: Way, base: Path, disk: str) -> dict[str, float]:
    """Make a disk, write, pause, and take it away; returns how long each step took."""
    tended.byre.ensure(
        disk, base=base, driver=DriverChoice.DM_SNAPSHOT, direct_io=way.direct_io, reason="bench"
    )
    tended.wait([disk])
    device, size = Path(tended.byre.get(disk).device).resolve(), base.stat().st_size
    flags = os.O_RDWR | (os.O_DIRECT if way.past_cache else 0)
    descriptor = os.open(device, flags)
    took = {"write": timed_s(functools.partial(_write, descriptor, size))}
    if way.ahead:
        tended.byre.command([disk], Trigger.PAUSE, reason="bench")
        took["flush ahead, beside the user"] = timed_s(functools.partial(_all_out, device, size))
    took["stall: close"] = timed_s(functools.partial(os.close, descriptor))
    took["stall: pause"] = timed_s(functools.partial(tended.pause, disk))
    took["stall"] = took["stall: close"] + took["stall: pause"]
    yard.settle()
    tended.remove(disk)
    return took


def _write(descriptor: int, size: int) -> None:
    with mmap.mmap(-1, _PIECE) as piece:  # aligned, as O_DIRECT wants it
        piece.write(os.urandom(_PIECE))
        for offset in range(0, size, _PIECE):
            os.pwrite(descriptor, piece, offset)


def _all_out(device: Path, size: int) -> None:
    """Wait until so much has reached the device below the page cache."""
    stat = Path("/sys/block", device.name, "stat")

    def is_out() -> bool:
        return int(stat.read_text(encoding="ascii").split()[6]) * _SECTOR >= size

    until(is_out, f"what was written has reached {device}")

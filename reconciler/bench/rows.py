"""The catalogue: every row of the bench, what it needs of a host, and which measurement gives it.

May be imported by the package, by cli and tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from reconciler.bench import (
    appends,
    crowd,
    diskio,
    flush,
    forks,
    life,
    longlog,
    programs,
    simulated,
    start,
    traced,
    udevwork,
    versus,
)
from reconciler.bench.plan import Plan
from reconciler.bench.results import Measured
from reconciler.bench.yard import Yard
from reconciler.kernel.port import Kernel

Measurement = Callable[[Yard, Plan], Mapping[str, Measured]]
_EXEC: Final = ("losetup", "dmsetup")


@attrs.frozen(kw_only=True)
class Row:
    """One row: what it is about, and how it is measured."""

    title: str
    measure: Measurement
    needs_devices: bool = True
    """Whether it needs device-mapper and loop devices."""
    programs: tuple[str, ...] = ()
    """Programs that it starts, besides this Python."""
    missing: Callable[[], str] = str
    """Says which package is missing; "" for none."""


ROWS: Final[dict[str, Row]] = {
    "create": Row(title="one disk, declared → live", measure=life.measure, programs=_EXEC),
    "pause": Row(title="live → paused", measure=life.measure, programs=_EXEC),
    "restore": Row(title="paused → live", measure=life.measure, programs=_EXEC),
    "heal": Row(title="device removed by hand → live again", measure=life.measure, programs=_EXEC),
    "remove": Row(title="live → removed", measure=life.measure, programs=_EXEC),
    "apply": Row(
        title="many disks in one apply, until all are live",
        measure=crowd.measure_apply,
        programs=_EXEC,
    ),
    "scale": Row(title="one disk more, among many live ones", measure=crowd.measure),
    "resync": Row(
        title="full resync of many converged disks", measure=crowd.measure, programs=_EXEC
    ),
    "idle": Row(title="many live disks, nothing happening", measure=crowd.measure),
    "calls": Row(
        title="system calls of the reconciler for one disk",
        measure=traced.measure,
        programs=("strace",),
    ),
    "udev": Row(title="what udev does for one disk", measure=udevwork.measure, programs=_EXEC),
    "flush": Row(title="much written, then paused", measure=flush.measure),
    "fork": Row(
        title="a paused disk forked, by reflink and by copying",
        measure=forks.measure,
        needs_devices=False,
        missing=forks.missing,
    ),
    "io": Row(
        title="reading and writing a live disk, by fio", measure=diskio.measure, programs=("fio",)
    ),
    "appends": Row(
        title="durable appends by many writers", measure=appends.measure, needs_devices=False
    ),
    "sim": Row(
        title="many disks on a simulated kernel", measure=simulated.measure, needs_devices=False
    ),
    "log": Row(title="a log of many events", measure=longlog.measure, needs_devices=False),
    "versus": Row(
        title="the same events with the package eventsourcing",
        measure=versus.measure,
        needs_devices=False,
        missing=versus.missing,
    ),
    "get": Row(title="`byre get`, whole process", measure=start.measure, needs_devices=False),
}
"""Every row by its name, in the order of the table."""


def why_not(row: Row, kernel: Kernel) -> str:
    """Say why a row cannot be measured on this host; "" if it can."""
    if not row.needs_devices:
        return row.missing()
    able = kernel.capabilities()
    missing = [name for name in row.programs if programs.find(name) is None]
    return able.dm or able.loop or (f"{missing[0]} is not installed" if missing else "")

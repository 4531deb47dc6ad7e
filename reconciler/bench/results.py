"""What was measured, as values: samples, rows and runs, to JSON and back.

Pure. Units are words beside the numbers, as a run has milliseconds, bytes and shares side by side.
May be imported by the package, by cli, docs and tests.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import cattrs

from statemachine.errors import ByreError, UsageError

FORMAT: Final = 1


class BenchFailed(ByreError):
    """A measurement could not be made: a program failed, or something did not come in time."""


def quantile(samples: Sequence[float], percent: int) -> float:
    """Return a quantile of some samples, by the nearest rank: always one of them."""
    assert samples, "no samples, no quantile"
    rank = max(1, math.ceil(len(samples) * percent / 100))
    return sorted(samples)[rank - 1]


@attrs.frozen(kw_only=True)
class Series:
    """The samples of one contestant."""

    name: str
    """"byre", "exec", "floor", …"""
    unit: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The 50th percentile."""
        return quantile(self.samples, 50)

    @property
    def p95(self) -> float:
        """The 95th percentile."""
        return quantile(self.samples, 95)

    @property
    def p99(self) -> float:
        """The 99th percentile."""
        return quantile(self.samples, 99)


@attrs.frozen(kw_only=True)
class Point:
    """What one contestant's operation cost among so many disks: for the plot, and for the eye."""

    name: str
    disks: int
    median_s: float


@attrs.frozen(kw_only=True)
class Measured:
    """What a measurement found out for one row; `values` are what the targets speak of."""

    series: tuple[Series, ...] = ()
    values: Mapping[str, float] = attrs.Factory(dict[str, float])
    points: tuple[Point, ...] = ()
    notes: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Check:
    """One target of a row, and what came out."""

    target: str
    measured: str
    is_met: bool


@attrs.frozen(kw_only=True)
class RowResult:
    """One row of one run; `left_out` says why there is nothing in it."""

    name: str
    title: str
    left_out: str = ""
    failed: bool = False
    """Whether it was left out because it went wrong."""
    series: tuple[Series, ...] = ()
    points: tuple[Point, ...] = ()
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Machine:
    """What the figures are of."""

    where: str
    """"in the VM", "on the host"; in the words of whoever ran it."""
    kernel: str
    cpu: str
    cpus: int
    python: str
    sqlite: str
    byre: str
    file_system: str
    """Of the folder that the root was in: on tmpfs an fsync costs nothing."""
    udev: bool
    """Whether udevd was alive."""
    udev_rules: bool
    """Whether it had byre's rules."""


@attrs.frozen(kw_only=True)
class Run:
    """One run of the command."""

    machine: Machine
    quick: bool
    rounds: int
    rows: tuple[RowResult, ...]


def renewed(old: Sequence[Run], new: Sequence[Run]) -> list[Run]:
    """Return the runs of both, without the old rows that were measured anew at the same place.

    A row that was left out this time, since it cannot be measured here or failed, replaces none.
    """
    anew = {(run.machine.where, row.name) for run in new for row in run.rows if not row.left_out}
    kept = [
        attrs.evolve(
            run, rows=tuple(row for row in run.rows if (run.machine.where, row.name) not in anew)
        )
        for run in old
    ]
    told = [
        attrs.evolve(run, rows=tuple(row for row in run.rows if not row.left_out)) for run in new
    ]
    return [run for run in (*kept, *told) if run.rows]


def to_json(runs: Sequence[Run]) -> dict[str, Any]:
    """Return runs as plain data; medians and percentiles are beside their samples."""
    converter = cattrs.Converter()
    plain = cattrs.gen.make_dict_unstructure_fn(Series, converter)

    def with_quantiles(series: Series) -> dict[str, Any]:
        told = {"median": series.median, "p95": series.p95, "p99": series.p99}
        return {**plain(series), **told}

    converter.register_unstructure_hook(Series, with_quantiles)
    return {"format": FORMAT, "runs": [converter.unstructure(run) for run in runs]}


def from_json(text: str, *, source: str) -> list[Run]:
    """Read what `to_json` made.

    Raises:
        UsageError: it is something else; the source is named.
    """
    converter = cattrs.Converter()
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            msg = f"{source} has format {data['format']!r}; allowed is {FORMAT}"
            raise UsageError(msg)
        return [converter.structure(run, Run) for run in data["runs"]]
    except (ValueError, KeyError, TypeError, cattrs.BaseValidationError) as error:
        msg = f"{source} is no output of `byre bench -o json`: {error}"
        raise UsageError(msg) from error

"""Runs as text: the lines of the table for a terminal, and the table of the page in Markdown.

Pure. May be imported by the package, by cli, docs and tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from reconciler.bench.results import Machine, RowResult, Run, Series

PART: Final = "figures"
"""The name of the generated part of docs/explanation/performance.md."""
COLUMNS: Final = ("ROW", "WHAT", "MEDIAN", "P95", "P99", "N", "UNIT")
CHECK_COLUMNS: Final = ("ROW", "MEASURED", "TARGET", "MET")


def lines(run: Run) -> Iterator[tuple[str, ...]]:
    """Yield a row of the terminal's table for each series."""
    for row in run.rows:
        for number, series in enumerate(row.series):
            first = "" if number else row.name
            yield (first, series.name, *_quantiles(series), str(len(series.samples)), series.unit)


def checks(run: Run) -> Iterator[tuple[str, ...]]:
    """Yield a row of the terminal's table of targets, for each target and each row left out."""
    for row in run.rows:
        if row.left_out:
            yield (row.name, f"left out: {row.left_out}", "", "-")
        for check in row.checks:
            yield (row.name, check.measured, check.target, "yes" if check.is_met else "NO")


def markdown(runs: Sequence[Run]) -> str:
    """Return the generated part of the page: targets and figures of each run."""
    return "\n\n".join(part for run in runs for part in _of_run(run))


def _of_run(run: Run) -> Iterator[str]:
    yield f"### Measured {run.machine.where}"
    yield _words(run.machine, quick=run.quick)
    measured = [row for row in run.rows if not row.left_out]
    yield _table(
        ("row", "what", "measured", "target", "met"),
        [
            (f"`{row.name}`", row.title, check.measured, check.target, _met(is_met=check.is_met))
            for row in measured
            for check in row.checks
        ],
    )
    yield _table(
        ("row", "who", "median", "p95", "p99", "samples", "unit"),
        [
            (
                f"`{row.name}`",
                series.name,
                *_quantiles(series),
                f"{len(series.samples)}",
                series.unit,
            )
            for row in measured
            for series in row.series
        ],
    )
    points = _points(measured)
    if points:
        yield _table(("live disks", "who", "one more, median, ms"), points)
    remarks = [f"- `{row.name}`: {note}" for row in measured for note in row.notes]
    remarks += [f"- `{row.name}` was left out: {row.left_out}" for row in run.rows if row.left_out]
    if remarks:
        yield "\n".join(remarks)


def _points(rows: Sequence[RowResult]) -> list[tuple[str, ...]]:
    found = [point for row in rows for point in row.points]
    return [(f"{each.disks}", each.name, f"{each.median_s * 1e3:.1f}") for each in found]


def _words(machine: Machine, *, quick: bool) -> str:
    rules = "with" if machine.udev_rules else "without"
    udev = f"udevd {rules} byre's rules" if machine.udev else "no udevd"
    said = (
        f"byre {machine.byre}, Linux {machine.kernel}, {machine.cpus} CPUs ({machine.cpu}), "
        f"Python {machine.python}, SQLite {machine.sqlite}, roots on {machine.file_system}, {udev}."
    )
    return f"{said} A quick look: too few samples to rely on." if quick else said


def _quantiles(series: Series) -> tuple[str, str, str]:
    return _short(series.median), _short(series.p95), _short(series.p99)


def _short(value: float) -> str:
    """Print three digits or more: 0.123, 12.3, 1234."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004


def _met(*, is_met: bool) -> str:
    return "yes" if is_met else "**no**"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    every = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in every)

"""The pictures of a run: cost against the number of disks, and how latencies are spread.

matplotlib draws them. It is no part of what byre needs (the dependency group `bench` has it), so
without it nothing is drawn, and `missing` says why. May be imported by cli and tests.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from reconciler.bench.results import RowResult, Run

KINDS: Final = ("png", "svg")
_STEPS: Final = ("create", "pause", "restore", "heal", "remove")
_COLUMNS: Final = 3
_WIDTH_INCHES: Final = 4.5
_HEIGHT_INCHES: Final = 3.5
_COLOURS: Final = {
    "exec": "tab:gray",
    "floor": "tab:blue",
    "byre": "tab:red",
    "byre, by its log": "tab:orange",
    "byre, no daemon": "tab:purple",
}
"""A contestant has the same colour everywhere."""
_SALT: Final = "byre"


def missing() -> str:
    """Say why nothing can be drawn; "" if it can."""
    if importlib.util.find_spec("matplotlib") is None:
        return "matplotlib is not installed; the dependency group `bench` has it"
    return ""


def draw(run: Run, folder: Path) -> list[Path]:
    """Draw what a run has figures for; returns the files, PNG and SVG of each picture.

    Args:
        run: the picture of a row that was left out is not drawn.
        folder: made if it is missing; files in it are replaced.
    """
    import matplotlib as mpl  # noqa: PLC0415 - only where it is installed

    mpl.use("Agg")
    # The same figures give the same file, so that a page changes when its figures do.
    mpl.rcParams["svg.hashsalt"] = _SALT
    folder.mkdir(parents=True, exist_ok=True)
    rows = {row.name: row for row in run.rows if not row.left_out}
    drawn = []
    if "scale" in rows:
        drawn += _draw_cost(rows["scale"], folder)
    steps = [rows[name] for name in _STEPS if name in rows]
    if steps:
        drawn += _draw_spread(steps, folder)
    return drawn


def _draw_cost(row: RowResult, folder: Path) -> list[Path]:
    """Draw what one disk more costs, against how many there are."""
    figure, [[axis]] = _figure(lines=1, columns=1)
    for name in dict.fromkeys(point.name for point in row.points):
        points = [point for point in row.points if point.name == name]
        axis.plot(
            [point.disks for point in points],
            [point.median_s * 1e3 for point in points],
            marker="o",
            label=name,
            color=_COLOURS.get(name),
        )
    axis.set(title="One disk more, declared → live", xlabel="live disks", ylabel="ms, median")
    _read_as_numbers(axis)
    axis.set_ylim(bottom=0)
    axis.legend()
    axis.grid(alpha=0.3)
    return _saved(figure, folder / "cost")


def _draw_spread(rows: Sequence[RowResult], folder: Path) -> list[Path]:
    """Draw the share of samples that are below a latency, for each step and contestant."""
    figure, grid = _figure(lines=math.ceil(len(rows) / _COLUMNS), columns=min(_COLUMNS, len(rows)))
    axes = [axis for line in grid for axis in line]
    for axis, row in zip(axes, rows, strict=False):
        for series in row.series:
            ordered = sorted(series.samples)
            shares = [(number + 1) / len(ordered) for number in range(len(ordered))]
            colour = _COLOURS.get(series.name)
            axis.step(ordered, shares, where="post", label=series.name, color=colour)
        axis.set(title=row.name, xlabel="ms", ylabel="share of samples below")
        _read_as_numbers(axis)
        axis.grid(alpha=0.3)
    lines, names = axes[0].get_legend_handles_labels()
    for axis in axes[len(rows) :]:
        axis.set_axis_off()
    figure.legend(lines, names, loc="outside lower center", ncols=len(names))
    return _saved(figure, folder / "latency")


def _read_as_numbers(axis: Any) -> None:  # noqa: ANN401 - matplotlib may be missing
    """Make the scale below logarithmic, with 10, 20, 50, 100 at its marks and not powers of ten."""
    from matplotlib import ticker  # noqa: PLC0415 - only where it is installed

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())


def _figure(*, lines: int, columns: int) -> tuple[Any, Any]:
    """Return a figure and its axes, line by line; all have one scale from left to right."""
    from matplotlib import pyplot  # noqa: PLC0415 - only where it is installed

    made: tuple[Any, Any] = pyplot.subplots(
        lines,
        columns,
        figsize=(_WIDTH_INCHES * columns, _HEIGHT_INCHES * lines),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    return made


def _saved(figure: Any, stem: Path) -> list[Path]:  # noqa: ANN401 - matplotlib may be missing
    from matplotlib import pyplot  # noqa: PLC0415 - only where it is installed

    paths = []
    for kind in KINDS:
        path = stem.with_suffix(f".{kind}")
        figure.savefig(path, dpi=120, metadata={"Date": None} if kind == "svg" else {})
        paths.append(path)
    pyplot.close(figure)
    return paths

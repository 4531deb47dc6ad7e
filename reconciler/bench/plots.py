"""The pictures of a run: cost against the number of disks, and how latencies are spread.

matplotlib draws them. It is no part of what byre needs (the dependency group `bench` has it), so
without it nothing is drawn, and `missing` says why. May be imported by cli and tests.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from reconciler.bench.results import RowResult, Run

KINDS: Final = ("png", "svg")
_STEPS: Final = ("create", "pause", "restore", "heal", "remove")
_SIZE_INCHES: Final = (8.0, 4.5)
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
    figure, axes = _figure(columns=1)
    for name in dict.fromkeys(point.name for point in row.points):
        points = [point for point in row.points if point.name == name]
        costs_ms = [point.median_s * 1e3 for point in points]
        axes[0].plot([point.disks for point in points], costs_ms, marker="o", label=name)
    axes[0].set(title="One disk more, declared → live", xlabel="live disks", ylabel="ms, median")
    axes[0].set_xscale("log")
    axes[0].set_ylim(bottom=0)
    axes[0].legend()
    axes[0].grid(alpha=0.3)
    return _saved(figure, folder / "cost")


def _draw_spread(rows: Sequence[RowResult], folder: Path) -> list[Path]:
    """Draw the share of samples that are below a latency, for each step and contestant."""
    figure, axes = _figure(columns=len(rows))
    for axis, row in zip(axes, rows, strict=True):
        for series in row.series:
            ordered = sorted(series.samples)
            shares = [(number + 1) / len(ordered) for number in range(len(ordered))]
            axis.step(ordered, shares, where="post", label=series.name)
        axis.set(title=row.name, xlabel="ms")
        axis.set_xscale("log")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share of samples below")
    axes[0].legend(fontsize="small")
    return _saved(figure, folder / "latency")


def _figure(*, columns: int) -> tuple[Any, Any]:
    from matplotlib import pyplot  # noqa: PLC0415 - only where it is installed

    width = _SIZE_INCHES[0] * max(1.0, columns / 2)
    figure, axes = pyplot.subplots(
        1, columns, figsize=(width, _SIZE_INCHES[1]), squeeze=False, layout="constrained"
    )
    return figure, axes[0]


def _saved(figure: Any, stem: Path) -> list[Path]:  # noqa: ANN401 - matplotlib may be missing
    from matplotlib import pyplot  # noqa: PLC0415 - only where it is installed

    paths = []
    for kind in KINDS:
        path = stem.with_suffix(f".{kind}")
        figure.savefig(path, dpi=120, metadata={"Date": None} if kind == "svg" else {})
        paths.append(path)
    pyplot.close(figure)
    return paths

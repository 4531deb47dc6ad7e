"""`bench`: how fast byre is here, against the programs that others start and the bare ioctls."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs
import click

from reconciler.bench import counts, page, plots
from reconciler.bench.plan import EVENTS, EVENTS_QUICK, ROUNDS, ROUNDS_QUICK, Plan
from reconciler.bench.results import Run, from_json, renewed, to_json
from reconciler.bench.runner import chosen, run
from reconciler.cli import options, say
from reconciler.cli.interrupting import ended_by_signals
from statemachine.errors import UsageError

ROUNDS_MAX = 10_000
EVENTS_MAX = 1_000_000_000


@click.command(
    "bench",
    epilog=options.epilog(
        "byre bench --counts",
        "byre bench create remove --rounds 50",
        "byre bench --quick -o json",
    ),
)
@click.argument("rows", nargs=-1, metavar="[ROW]...")
@click.option("--quick", is_flag=True, help="A look that takes seconds and not minutes.")
@click.option("--counts", "only_counts", is_flag=True, help="Counts instead of times; see below.")
@click.option(
    "--rounds",
    type=click.IntRange(1, ROUNDS_MAX),
    help=f"How often each thing is measured.  [default: {ROUNDS}, with --quick {ROUNDS_QUICK}]",
)
@click.option(
    "--events",
    type=click.IntRange(1_000, EVENTS_MAX),
    help=f"How long the log of the row `log` is.  [default: {EVENTS}, with --quick {EVENTS_QUICK}]",
)
@options.output("table", "json")
@click.option(
    "--plots",
    "plots_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Draw pictures into this folder (needs matplotlib).",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where the throw-away roots are made: which file system is measured.  [default: TMPDIR]",
)
@click.option("--where", default="here", show_default=True, help="What to call this machine.")
@click.option(
    "--with",
    "others",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="Show what another run printed with -o json as well.",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Put all that is shown into this file; rows that it has of the same WHERE are replaced.",
)
def bench_command(
    *,
    rows: tuple[str, ...],
    quick: bool,
    only_counts: bool,
    rounds: int | None,
    events: int | None,
    output: str,
    plots_folder: Path | None,
    folder: Path | None,
    where: str,
    others: tuple[Path, ...],
    into: Path | None,
) -> int:
    """Measure byre on this host, in throw-away roots; times are told and never fail.

    A row is one of create, pause, restore, heal, remove, apply, scale, resync, idle, calls, udev,
    flush, io (these need root and device-mapper), fork (needs root and btrfs), appends, sim, log,
    versus and get; without one all are measured. A row that this host cannot measure is left out,
    with the reason.

    With --counts nothing is timed: it counts the kernel calls, commits, bytes and processes of each
    transition on a simulated kernel, and fails if one is above its bound.
    """
    if only_counts:
        return _count(rows, output)
    plan = Plan(
        quick=quick,
        rounds=rounds or (ROUNDS_QUICK if quick else ROUNDS),
        events=events or (EVENTS_QUICK if quick else EVENTS),
        tell=_tell,
    )
    names = chosen(rows)
    runs = [each for path in others for each in _read(path)]
    had = _read(into) if into is not None and into.exists() else []
    place = folder or Path(tempfile.gettempdir())
    from reconciler.kernel.linux import LinuxKernel  # noqa: PLC0415 - not for those with a sim

    with ended_by_signals():
        runs.append(run(names, plan, LinuxKernel(), place, where=where))
    _show(runs, output)
    if into is not None:
        _write(into, renewed(had, runs))
    _draw(runs, plots_folder)
    return 1 if any(row.failed for each in runs for row in each.rows) else 0


def _read(path: Path) -> list[Run]:
    return from_json(path.read_text(encoding="utf-8"), source=str(path))


def _write(path: Path, runs: Sequence[Run]) -> None:
    """Put runs into a file, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(f"{say.document(to_json(runs))}\n", encoding="utf-8")
    new.replace(path)


def _tell(text: str) -> None:
    say.person(click.style(f"  {text}", dim=True))


def _show(runs: Sequence[Run], output: str) -> None:
    if output == "json":
        say.machine(to_json(runs))
        return
    for each in runs:
        title = f"{each.machine.where}: Linux {each.machine.kernel}, {each.machine.cpu}"
        say.table(page.COLUMNS, page.lines(each), title=title)
        say.table(page.CHECK_COLUMNS, page.checks(each))
        for row in each.rows:
            for note in row.notes:
                say.person(f"{row.name}: {note}")


def _count(rows: Sequence[str], output: str) -> int:
    """Count, show, and say what is above its bound."""
    if rows:
        raise UsageError("--counts counts every transition; it takes no ROW")
    found = counts.count()
    if output == "json":
        say.machine({name: attrs.asdict(each) for name, each in found.items()})
    else:
        columns = ("TRANSITION", *(name.upper() for name in attrs.fields_dict(counts.Counts)))
        cells = [(name, *map(str, attrs.astuple(each))) for name, each in found.items()]
        say.table(columns, cells)
    over = counts.regressions(found)
    for each in over:
        say.error(each, "look for what made it grow; the bounds are in reconciler/bench/counts.py")
    return 1 if over else 0


def _draw(runs: Sequence[Run], folder: Path | None) -> None:
    """Draw every run that has something to draw, or say why nothing was drawn."""
    if folder is None:
        return
    reason = plots.missing()
    if reason:
        say.person(f"no pictures were drawn: {reason}")
        return
    for each in runs:
        for path in plots.draw(each, folder):
            say.person(f"drawn: {path}")

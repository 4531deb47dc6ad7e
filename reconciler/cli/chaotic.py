"""`chaos`: byre against everything that can go wrong, on a simulated host, repeatable by a seed."""

from __future__ import annotations

from typing import Final

import attrs
import click

from reconciler.chaos import DISKS, DISKS_MAX, STEPS, STEPS_MAX, Plan, Report, run, smallest
from reconciler.cli import options, say

SEED_MAX: Final = 2**63 - 1


@click.command(
    "chaos",
    epilog=options.epilog("byre chaos --seed 7", "byre chaos --seed 7 --steps 200 -o json"),
)
@click.option(
    "--seed",
    type=click.IntRange(0, SEED_MAX),
    default=0,
    show_default=True,
    help="Which run: the same seed gives the very same one.",
)
@click.option(
    "--steps",
    type=click.IntRange(0, STEPS_MAX),
    default=STEPS,
    show_default=True,
    help="How many wishes and faults.",
)
@click.option(
    "--disks",
    type=click.IntRange(1, DISKS_MAX),
    default=DISKS,
    show_default=True,
    help="How many disks there are.",
)
@options.output("table", "json")
def chaos_command(*, seed: int, steps: int, disks: int, output: str) -> int:
    """Run wishes and faults on a simulated host, mend it, and see if byre copes; 1 if it does not.

    Nothing of this host is touched, and no privilege is needed.
    """
    report = run(Plan(seed=seed, steps=steps, disks=disks))
    replay = "" if report.converged else smallest(report.plan).command()
    if output == "json":
        say.machine({**_plain(report), "replay": replay})
    else:
        _show(report)
    if not report.converged:
        _complain(report, replay)
    return 0 if report.converged else 1


def _plain(report: Report) -> dict[str, object]:
    return {**attrs.asdict(report), "converged": report.converged}


def _show(report: Report) -> None:
    rows = [(str(s.number or "-"), s.at, s.kind, s.text) for s in report.steps]
    say.table(("STEP", "TIME", "KIND", "WHAT"), rows)
    broke = ", ".join(f"{what} {count}" for what, count in report.broke.items())
    say.person(f"broke: {broke or 'nothing'}")
    states = ", ".join(f"{name} {state}" for name, state in report.states.items())
    say.person(f"disks: {states or 'none'}")
    figures = ", ".join(f"{name} {count}" for name, count in report.figures.items())
    say.person(f"figures: {figures}")
    if report.converged:
        say.person("converged: every disk was as asked or said why not, and nothing was left over")


def _complain(report: Report, replay: str) -> None:
    for problem in report.problems:
        say.error(problem)
    say.person(f"  again, with the least steps: {replay}")

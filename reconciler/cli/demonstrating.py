"""`demo`: byre shown at work on this very host, and nothing left of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from reconciler.cli import options, say
from reconciler.cli.interrupting import ended_by_signals
from reconciler.cli.wording import what
from reconciler.demo import Options, Teller, demonstrate
from statemachine.events import Event
from statemachine.spec import DriverChoice


@click.command("demo", epilog=options.epilog("byre demo", "byre demo --keep"))
@click.option("--keep", is_flag=True, help="Keep the folder with the log of what happened.")
@click.option(
    "--driver",
    type=click.Choice([each.value for each in DriverChoice]),
    default=DriverChoice.AUTO.value,
    show_default=True,
    help="How the disks are built.",
)
@click.option("--without-loops", is_flag=True, hidden=True, help="As if no loops were permitted.")
def demo_command(*, keep: bool, driver: str, without_loops: bool) -> None:
    """Show the life of three disks on this host, in a folder of its own; nothing is left of it."""
    began = time.monotonic()
    chosen = Options(driver=DriverChoice(driver), without_loops=without_loops, keep=keep)
    folder = Path(tempfile.mkdtemp(prefix="byre-demo-"))
    with ended_by_signals():
        demonstrate(folder, _Terminal(), chosen)
    say.person(f"\nEvery check held, in {time.monotonic() - began:.1f} s.")
    if keep:
        say.person(f"the log is kept: byre --root {folder}/root history")


class _Terminal(Teller):
    """Lines on stderr, in colour on a terminal."""

    def __init__(self) -> None:
        self._number = 0

    def step(self, text: str) -> None:
        """Print a numbered line."""
        self._number += 1
        mark = click.style("ok", fg="green", bold=True)
        say.person(f"{mark} {self._number:2}. {text}")

    def detail(self, text: str) -> None:
        """Print an indented line."""
        say.person(click.style(f"       {text}", dim=True))

    def table(self, events: Sequence[Event]) -> None:
        """Print a history."""
        first = events[0].at if events else 0
        rows = [
            (str(e.seq), f"+{(e.at - first) / 1e9:.2f} s", e.type, what(e), e.actor) for e in events
        ]
        say.table(("SEQ", "TIME", "EVENT", "WHAT", "ACTOR"), rows)

"""`log backup` and `log restore`: a copy of the log to keep, and how to go on with it."""

from __future__ import annotations

from pathlib import Path

import attrs
import click

from reconciler.cli import options, say
from reconciler.cli.app import Context
from statemachine.backup import back_up


@click.command("backup", epilog=options.epilog("byre log backup /srv/backup/byre-monday.db"))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@options.output("table", "json")
@click.pass_obj
def backup_command(ctx: Context, *, file: Path, output: str) -> None:
    """Copy the log into a new file, also while a reconciler works; the copy is proven."""
    made = back_up(ctx.root.log, file.absolute())
    if output == "json":
        say.machine(attrs.asdict(made))
    say.person(f"{made.events} events are in {file}, checked; head {made.seq}:{made.hash}")

"""`log backup` and `log restore`: a copy of the log to keep, and how to go on with it."""

from __future__ import annotations

from pathlib import Path

import attrs
import click

from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.clock import SystemClock
from reconciler.kernel.linux import LinuxKernel
from reconciler.requester import this_process
from reconciler.restore import restore
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


@click.command("restore", epilog=options.epilog("byre log restore /srv/backup/byre-monday.db"))
@click.argument(
    "file", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@options.reasoned
@options.output("table", "json")
@click.pass_obj
def restore_command(ctx: Context, *, file: Path, reason: str, output: str) -> None:
    """Put a backup in the place of the log; no disk is touched, doubtful wishes are held back."""
    done = restore(
        ctx.root,
        file.absolute(),
        boot_id=LinuxKernel().boot_id(),
        now_ns=SystemClock().now_ns,
        by=this_process(),
        reason=reason,
    )
    if output == "json":
        say.machine(attrs.asdict(done))
    say.person(f"the log is the one of {file}, up to event {done.seq}")
    if done.lost_seq > done.seq:
        say.person(f"events {done.seq + 1} to {done.lost_seq} are not in it")
    if done.kept:
        say.person(f"the log of before is in {done.kept}")
    for name in done.held:
        say.person(f"{name} is held back: say again what it should be, see `byre explain {name}`")
    say.person("look with `byre plan` and `byre orphans` before you start the reconciler")

"""`checkpoint` and `points`: keeping a disk as it is at a moment, and what is kept of it."""

from __future__ import annotations

import click

from reconciler import thishost
from reconciler.api import Byre
from reconciler.cli import describe, options, say
from reconciler.cli.app import Context
from reconciler.cli.interrupting import ended_by_signals
from reconciler.cli.suspending import when_live_option
from reconciler.cli.wishing import claimed
from reconciler.clock import SystemClock
from reconciler.source import WhenLive
from statemachine.errors import NoSuchDisk
from statemachine.logreader import LogReader
from statemachine.units import Bytes


@click.command(
    "checkpoint",
    epilog=options.epilog(
        "byre checkpoint sb-1 clean",
        "byre checkpoint sb-1 --keep 3 --reason nightly",
        "byre checkpoint sb-1 --drop clean --drop p1",
    ),
)
@click.argument("name", shell_complete=options.complete_names)
@click.argument("point", required=False, default="")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Let go of the oldest points if there are more than so many, this one included.",
)
@click.option(
    "--drop",
    "drop",
    multiple=True,
    metavar="POINT",
    help="Let go of a point instead of making one; may be given several times.",
)
@when_live_option
@options.reasoned
@claimed
@options.output("table", "json")
@click.pass_obj
def checkpoint_command(
    ctx: Context,
    *,
    name: str,
    point: str,
    keep: int | None,
    drop: tuple[str, ...],
    when_live: str,
    reason: str,
    on_behalf_of: str,
    output: str,
) -> None:
    """Keep a disk as it is now, under the name of a POINT; by default p1, p2 and so on.

    `byre restore NAME --to POINT` goes back to it, and `byre fork NAME@POINT NEW` makes a disk of
    it. It is a copy of the disk's own file: a reflink where the file system has them, else only
    what is allocated is copied. A live disk is suspended for the copy. The points of a disk go
    with it.
    """
    if drop and (point or keep is not None):
        raise click.UsageError("--drop lets go of points and makes none")
    with Byre(ctx.root.path, settings=ctx.settings) as byre, ended_by_signals():
        words = {"reason": reason, "on_behalf_of": on_behalf_of}
        if drop:
            gone = byre.drop_points(name, drop, **words)
        else:
            live = WhenLive(when_live)
            made = byre.checkpoint(name, point, keep=keep, when_live=live, **words)
            gone = made.dropped
            say.person(f"{name}: point {made.point.name} is kept, by {made.point.how}")
            if made.frozen_ns:
                say.person(f"{name}: suspended for {made.frozen_ns / 1e6:.1f} ms")
        for each in gone:
            say.person(f"{name}: point {each} is dropped")
        if output == "json":
            say.machine(
                [describe.point(each, byre.kernel.allocated) for each in byre.get(name).points]
            )


@click.command("points", epilog=options.epilog("byre points sb-1", "byre points sb-1 -o json"))
@click.argument("name", shell_complete=options.complete_names)
@options.output("table", "json")
@click.pass_obj
def points_command(ctx: Context, *, name: str, output: str) -> None:
    """List the points that are kept of a disk, the oldest first."""
    with LogReader(ctx.root.log) as log:
        record = log.record(name)
    if record is None:
        raise NoSuchDisk(name)
    rows = [describe.point(each, thishost.allocated) for each in record.points]
    if output == "json":
        say.machine(rows)
        return
    now = SystemClock().now_ns()
    ages = [say.ago(each.at, now) for each in record.points]
    say.table(
        ["POINT", "AGE", "USED", "HOW"],
        [
            [row["name"], age, str(Bytes(row["used_bytes"])), row["how"]]
            for row, age in zip(rows, ages, strict=True)
        ],
    )

"""`fork`: new disks made of a disk."""

from __future__ import annotations

import click

from reconciler.api import Byre
from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.cli.declaring import finish
from reconciler.cli.interrupting import ended_by_signals
from reconciler.cli.suspending import when_live_option
from reconciler.cli.wishing import Wish, wishing
from reconciler.declare import Declared
from reconciler.source import WhenLive
from statemachine.machine import Desired


@click.command(
    "fork",
    epilog=options.epilog(
        "byre fork sb-1 sb-2 sb-3 --wait",
        "byre fork sb-1 try-1 --state paused --live refuse -o json",
    ),
)
@click.argument("source", shell_complete=options.complete_names)
@click.argument("names", metavar="NEW...", nargs=-1, required=True)
@click.option(
    "--state",
    type=click.Choice([Desired.LIVE.value, Desired.PAUSED.value]),
    default=Desired.LIVE.value,
    show_default=True,
    help="What the new disks should be.",
)
@when_live_option
@wishing
@click.pass_obj
def fork_command(
    ctx: Context,
    *,
    source: str,
    names: tuple[str, ...],
    state: str,
    when_live: str,
    wish: Wish,
) -> int:
    """Make new disks of a paused or live disk: the same base, and a copy of its own file.

    All of them come to be, or none. The copy is a reflink where the file system has them, else
    only what is allocated is copied. A live SOURCE is suspended for one copy, whatever the number
    of NEW disks. They have its spec, but for its link and its node in a jail.
    """
    with Byre(ctx.root.path, settings=ctx.settings) as byre:
        with ended_by_signals():
            made = byre.fork(
                source,
                names,
                state=Desired(state),
                when_live=WhenLive(when_live),
                reason=wish.reason,
                on_behalf_of=wish.on_behalf_of,
            )
        for name, parent in zip(made.names, made.parents, strict=True):
            say.person(f"{name}: forked off {parent} by {parent.how}")
        if made.frozen_ns:
            say.person(f"{source}: suspended for {made.frozen_ns / 1e6:.1f} ms")
        declared = [Declared(name=name, changed=True) for name in made.names]
        return finish(byre, declared, wish)

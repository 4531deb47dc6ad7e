"""`link`: a disk's link becomes another disk's."""

from __future__ import annotations

import click

from reconciler.cli import options
from reconciler.cli.app import Context
from reconciler.cli.declaring import finish, opened
from reconciler.cli.wishing import Wish, wishing


@click.command("link", epilog=options.epilog("byre link sb-2 --from sb-1 --wait"))
@click.argument("new", metavar="NEW", shell_complete=options.complete_names)
@click.option(
    "--from",
    "old",
    required=True,
    metavar="OLD",
    shell_complete=options.complete_names,
    help="The disk whose link it is.",
)
@wishing
@click.pass_obj
def link_command(
    ctx: Context,
    *,
    new: str,
    old: str,
    wish: Wish,
) -> int:
    """Have the link of disk OLD lead to disk NEW, and belong to it from now on.

    The saved state of a machine has paths in it: a disk that is restored under another name takes
    over the path of the one before. While both are live the link turns from one to the other at
    once; whatever has OLD open goes on with it.
    """
    with opened(ctx) as byre:
        declared = byre.hand_over(new, old, reason=wish.reason, on_behalf_of=wish.on_behalf_of)
        return finish(byre, declared, wish)

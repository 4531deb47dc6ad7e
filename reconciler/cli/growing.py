"""`grow` and `sparsify`: a larger disk, and a smaller file for what was written to it."""

from __future__ import annotations

import attrs
import click

from reconciler.cli import options
from reconciler.cli.app import Context
from reconciler.cli.declaring import finish, opened, unique
from reconciler.cli.wishing import Wish, wishing
from statemachine.errors import UsageError
from statemachine.units import Bytes, UnitError


class Size(click.ParamType[Bytes]):
    """A size in bytes, or with a suffix."""

    name = "SIZE"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> Bytes:
        """Read it."""
        try:
            return Bytes.parse(value)
        except UnitError as error:
            self.fail(f"found {value!r:.80}; allowed: bytes, or text such as '4GiB'", param, ctx)
            raise AssertionError from error


@click.command(
    "grow",
    epilog=options.epilog(
        "byre grow sb-1 --size 8GiB --wait",
        "byre grow sb-1 --size 8GiB --resize-fs",
        "byre grow sb-1 --cow-max 20GiB",
    ),
)
@click.argument("name", shell_complete=options.complete_names)
@click.option("--size", type=Size(), help="How large the disk is to be; never smaller than it is.")
@click.option("--cow-max", type=Size(), help="How far its CoW file may be grown.")
@click.option(
    "--resize-fs",
    is_flag=True,
    help="Wait, then check the ext4 file system on it and make it as large; nobody may use it.",
)
@wishing
@click.pass_obj
def grow_command(
    ctx: Context,
    *,
    name: str,
    size: Bytes | None,
    cow_max: Bytes | None,
    resize_fs: bool,
    wish: Wish,
) -> int:
    """Make a disk larger than its base, or let its CoW file become larger.

    What follows the base is zeros. A live disk grows under its user, who waits for some
    milliseconds; a guest sees it when its driver asks for the size again. A paused one is larger
    when it comes back.
    """
    if size is None and cow_max is None:
        raise UsageError("say how large: --size SIZE, --cow-max SIZE, or both")
    with opened(ctx) as byre:
        declared = byre.grow(
            name, size=size, cow_max=cow_max, reason=wish.reason, on_behalf_of=wish.on_behalf_of
        )
        code = finish(byre, declared, attrs.evolve(wish, wait=wish.wait or resize_fs))
        if resize_fs and code == 0:
            from reconciler.resizing import resize  # noqa: PLC0415 - only where it is asked for

            resize(byre, name)
        return code


@click.command("sparsify", epilog=options.epilog("byre sparsify sb-1 --wait"))
@options.names(required=True)
@wishing
@click.pass_obj
def sparsify_command(
    ctx: Context,
    *,
    names: tuple[str, ...],
    wish: Wish,
) -> int:
    """Make the CoW files of paused disks smaller: what is equal to the base goes, zeros are holes.

    The disks show what they showed. The store is written anew beside the old one, checked, and
    takes its name. With `sparsify = true` in a spec each pause does it.
    """
    with opened(ctx) as byre:
        declared = byre.sparsify(unique(names), reason=wish.reason, on_behalf_of=wish.on_behalf_of)
        return finish(byre, declared, wish)

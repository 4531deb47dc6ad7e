"""`diff`: where a disk differs from its base, or from another disk on it."""

from __future__ import annotations

from typing import Any, Final

import click

from reconciler.api import Byre
from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.cli.interrupting import ended_by_signals
from reconciler.cli.suspending import when_live_option
from reconciler.comparing import Comparison, compared
from reconciler.source import WhenLive
from statemachine.units import Bytes

ROWS_MAX: Final = 50
"""How many rows a table for people has; JSON has all."""


@click.command(
    "diff",
    epilog=options.epilog(
        "byre diff sb-1", "byre diff sb-1 sb-2 -o json", "byre diff sb-1 --files"
    ),
)
@click.argument("name", shell_complete=options.complete_names)
@click.argument("other", required=False, shell_complete=options.complete_names)
@click.option("--files", "with_files", is_flag=True, help="Name the files, if it is an ext4.")
@when_live_option
@options.output("table", "json")
@click.pass_obj
def diff_command(
    ctx: Context, *, name: str, other: str | None, with_files: bool, when_live: str, output: str
) -> None:
    """Show where a disk differs from its base, or from OTHER, a disk on the same base.

    Only what was written to is read, and only what differs is told, in blocks of 4 KiB. With
    --files debugfs is asked which files of NAME have something there, in a copy without a name:
    it needs room for that where the file system has no reflinks.
    """
    with (
        Byre(ctx.root.path, settings=ctx.settings, read_only=True) as byre,
        ended_by_signals(),
    ):
        found = compared(
            byre, name, other or "", when_live=WhenLive(when_live), with_files=with_files
        )
    if output == "json":
        say.machine(plain(found))
    else:
        _show(found)


def plain(found: Comparison) -> dict[str, Any]:
    """Return an answer as scripts get it (docs/reference/commands.md)."""
    touched = found.touched
    return {
        "disk": found.record.name,
        "other": found.other.name if found.other else None,
        "base": str(found.record.wanted.base),
        "size_bytes": found.record.size.count,
        "changed_bytes": found.changed,
        "count": len(found.spans),
        "ranges": [{"offset": span.start, "length": span.size} for span in found.spans],
        "files": None
        if touched is None
        else [{"path": path, "bytes": size} for path, size in touched.files],
        "other_bytes": touched.other if touched else None,
        "note": touched.note if touched else "",
    }


def _show(found: Comparison) -> None:
    rows = [(str(span.start), str(span.size)) for span in found.spans[:ROWS_MAX]]
    if rows:
        say.table(("OFFSET", "BYTES"), rows)
    if len(found.spans) > ROWS_MAX:
        say.person(f"and {len(found.spans) - ROWS_MAX} more; -o json has them all")
    if found.touched is not None:
        files = [(path, str(Bytes(size))) for path, size in found.touched.files]
        say.table(("FILE", "CHANGED"), files[:ROWS_MAX])
        if len(files) > ROWS_MAX:
            say.person(f"and {len(files) - ROWS_MAX} more; -o json has them all")
        if found.touched.other:
            say.person(f"{Bytes(found.touched.other)} belong to no file")
        if found.touched.note:
            say.person(f"files: {found.touched.note}")
    size, name = found.record.size, found.record.name
    against = found.other.name if found.other else f"base {found.record.wanted.base}"
    share = found.changed / max(1, size.count)
    say.person(
        f"{name}: {Bytes(found.changed)} in {len(found.spans)} ranges differ from {against}, "
        f"{share:.1%} of {size}"
    )
    if found.frozen_ns:
        say.person(f"{name}: suspended for {found.frozen_ns / 1e6:.1f} ms")

"""`orphans`: what carries byre's identity and belongs to no disk."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import click

from reconciler.adoption import Word
from reconciler.api import Byre
from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.cli.wishing import claimed
from reconciler.orphans import Orphan, survey
from statemachine.errors import ActionError
from statemachine.utc import iso

ADOPT_WAIT_S: Final = 30.0
"""How long the one look may take that an adopted disk gets at once."""


@click.command(
    "orphans",
    epilog=options.epilog(
        "byre orphans",
        "byre orphans --remove loop7",
        "byre orphans --adopt byre-sb-1 --as sb-1",
    ),
)
@click.option("--remove", metavar="NAME", help="Take this one away, if nobody uses it.")
@click.option(
    "--adopt", metavar="NAME", help="Give this one back to its disk, or take it in as a disk."
)
@click.option("--as", "as_name", metavar="DISK", help="With --adopt: what the disk is called.")
@click.option("--base", metavar="PATH", help="With --adopt: the image that it was made on.")
@options.reasoned
@claimed
@options.output("table", "json")
@click.pass_obj
def orphans_command(
    ctx: Context,
    *,
    remove: str | None,
    adopt: str | None,
    as_name: str | None,
    base: str | None,
    reason: str,
    on_behalf_of: str,
    output: str,
) -> None:
    """List what byre made and no disk needs; it is never removed but by name."""
    if remove is not None and adopt is not None:
        raise click.UsageError("--remove and --adopt do not go together")
    if adopt is None and (as_name is not None or base is not None):
        raise click.UsageError("--as and --base go with --adopt")
    if adopt is not None:
        word = Word(name=as_name or "", base=base or "")
        _adopt(ctx, adopt, word, reason=reason, on_behalf_of=on_behalf_of, output=output)
        return
    if remove is not None:
        _remove(ctx, remove, reason=reason, on_behalf_of=on_behalf_of, output=output)
        return
    with Byre(ctx.root.path, settings=ctx.settings, read_only=True) as byre:
        found = survey(byre.log, byre.kernel, byre.root)
        now_ns = byre.clock.now_ns()
        unseen = _why_no_dm(byre)
    _answer(found, output)
    if output == "table":
        _show(found, now_ns)
    if unseen:
        say.person(f"dm devices were not looked at: {unseen}")


def _why_no_dm(byre: Byre) -> str:
    """Return why this process may not see the dm devices that there are; "" when it may."""
    try:
        byre.kernel.dm_names()
    except ActionError as error:
        return error.message
    return ""


def _remove(ctx: Context, name: str, *, reason: str, on_behalf_of: str, output: str) -> None:
    from reconciler.resolve import Resolver  # noqa: PLC0415 - only with --remove or --adopt

    with Byre(ctx.root.path, settings=ctx.settings) as byre:
        removed = Resolver(byre, reason=reason, on_behalf_of=on_behalf_of).remove(name)
    _answer([removed], output)
    say.person(f"{removed.name}: removed")


def _adopt(
    ctx: Context, name: str, word: Word, *, reason: str, on_behalf_of: str, output: str
) -> None:
    from reconciler.resolve import Resolver  # noqa: PLC0415 - only with --remove or --adopt

    with Byre(ctx.root.path, settings=ctx.settings) as byre:
        adopted = Resolver(byre, reason=reason, on_behalf_of=on_behalf_of).adopt(name, word)
        [waited] = byre.wait([adopted.disk], timeout_s=ADOPT_WAIT_S)
    _answer([adopted.orphan], output)
    say.person(f"{adopted.orphan.name}: adopted, disk {adopted.disk} is {waited.record.state}")
    if not waited.is_there:
        say.error(f"{adopted.disk}: {waited.message}", waited.hint)
        sys.exit(waited.exit_code)


def _answer(orphans: Sequence[Orphan], output: str) -> None:
    if output != "json":
        return
    say.machine(
        [
            {
                "kind": orphan.kind.value,
                "name": orphan.name,
                "identity": orphan.identity,
                "disk_id": orphan.owner.disk_id if orphan.owner else None,
                "generation": orphan.owner.generation if orphan.owner else None,
                "evidence": orphan.evidence,
                "since": iso(orphan.since) if orphan.since is not None else None,
            }
            for orphan in orphans
        ]
    )


def _show(orphans: Sequence[Orphan], now_ns: int) -> None:
    if not orphans:
        say.person("no orphans")
        return
    rows = [
        (
            orphan.kind.value,
            orphan.name,
            orphan.identity,
            say.ago(orphan.since, now_ns) if orphan.since is not None else "-",
            orphan.evidence,
        )
        for orphan in orphans
    ]
    say.table(("KIND", "NAME", "IDENTITY", "AGE", "EVIDENCE"), rows)

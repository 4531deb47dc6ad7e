"""`orphans`: what carries byre's identity and belongs to no disk."""

from __future__ import annotations

from collections.abc import Sequence

import click

from reconciler.api import Byre
from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.orphans import Orphan, survey
from statemachine.errors import ActionError
from statemachine.history import iso


@click.command(
    "orphans",
    epilog=options.epilog("byre orphans", "byre orphans --remove loop7"),
)
@click.option("--remove", metavar="NAME", help="Take this one away, if nobody uses it.")
@click.option("--adopt", metavar="NAME", help="Give this one back to the disk that lost it.")
@options.reasoned
@options.output("table", "json")
@click.pass_obj
def orphans_command(
    ctx: Context, *, remove: str | None, adopt: str | None, reason: str, output: str
) -> None:
    """List what byre made and no disk needs; it is never removed but by name."""
    if remove is not None and adopt is not None:
        raise click.UsageError("--remove and --adopt do not go together")
    name = remove if remove is not None else adopt
    if name is not None:
        resolved = _resolve(ctx, name, reason=reason, adopting=adopt is not None)
        _answer([resolved], output)
        say.person(f"{resolved.name}: {'removed' if adopt is None else 'adopted'}")
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


def _resolve(ctx: Context, name: str, *, reason: str, adopting: bool) -> Orphan:
    from reconciler.resolve import Resolver  # noqa: PLC0415 - only with --remove or --adopt

    with Byre(ctx.root.path, settings=ctx.settings) as byre:
        resolver = Resolver(byre, reason=reason)
        return resolver.adopt(name) if adopting else resolver.remove(name)


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

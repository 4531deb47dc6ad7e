"""`base add`, `base list`, `base verify`, `base remove`: the registered base images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from reconciler import basekeeping
from reconciler.api import Byre
from reconciler.basekeeping import Condition, Listed, Verity
from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.cli.interrupting import ended_by_signals
from reconciler.cli.progress import byte_progress
from statemachine.basefacts import Base
from statemachine.names import DiskName, disk_name
from statemachine.units import Bytes
from statemachine.utc import iso

_DIGITS = 12
"""So much of a digest is in a table."""


@click.group("base", epilog=options.epilog("byre base add /srv/images/debian.ext4"))
def base_command() -> None:
    """Keep base images whose content is known: registered, read-only, with their SHA-256.

    A spec names one by its path, by `base:NAME` or by `sha256:DIGEST`.
    """


_names = click.argument("names", nargs=-1, metavar="NAME...")
_names_required = click.argument("names", nargs=-1, required=True, metavar="NAME...")


@base_command.command(
    "add",
    epilog=options.epilog(
        "byre base add /srv/images/debian.ext4",
        "byre base add ubuntu-24.04.img --name ubuntu --copy",
    ),
)
@click.argument("image", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--name", help="What specs call it; by default the file's name without its ending.")
@click.option("--copy", is_flag=True, help="Have a copy in the root, by reflink where possible.")
@click.option(
    "--verity",
    type=click.Choice([each.value for each in Verity]),
    default=Verity.AUTO.value,
    show_default=True,
    help="Turn on fs-verity, for ever; auto: for a copy, where the file system has it.",
)
@options.reasoned
@options.output("table", "json")
@click.pass_obj
def add_command(
    ctx: Context,
    *,
    image: Path,
    name: str | None,
    copy: bool,
    verity: str,
    reason: str,
    output: str,
) -> None:
    """Register a base image: compute its SHA-256, and take the right to write to it from all."""
    called = _name(name, image)
    with _open(ctx) as byre, ended_by_signals(), byte_progress() as tell:
        base, is_new = basekeeping.add(
            byre,
            image,
            name=called,
            copy=copy,
            verity=Verity(verity),
            reason=reason,
            tell=tell,
        )
        [listed] = basekeeping.listed(byre, [base.name])
        row = {**_row(byre, listed), "changed": is_new}
    if output == "json":
        say.machine(row)
    say.person(f"base:{base.name}: {'added' if is_new else 'unchanged'}: {base.path}")
    say.person(f"sha256: {base.sha256}")
    say.person(f"fs-verity: {base.verity or f'off: {base.verity_why}'}")


@base_command.command("list", epilog=options.epilog("byre base list", "byre base list -o json"))
@_names
@options.output("table", "json")
@click.pass_obj
def list_command(ctx: Context, *, names: tuple[str, ...], output: str) -> None:
    """Show the registered bases, what they are like, and which disks stand on them."""
    with Byre(ctx.root.path, read_only=True, settings=ctx.settings) as byre:
        _show(byre, basekeeping.listed(byre, names), output)


@base_command.command(
    "verify", epilog=options.epilog("byre base verify", "byre base verify ubuntu --full")
)
@_names
@click.option("--full", "in_full", is_flag=True, help="Read all of it, with fs-verity as well.")
@options.reasoned
@options.output("table", "json")
@click.pass_obj
def verify_command(
    ctx: Context, *, names: tuple[str, ...], in_full: bool, reason: str, output: str
) -> int:
    """Look whether bases are what was added, and record it; exit code 1 if one is not.

    Where fs-verity is on, the kernel checks all that is read, and its digest is compared.
    """
    with _open(ctx) as byre, ended_by_signals(), byte_progress() as tell:
        found = basekeeping.verify(byre, names, in_full=in_full, reason=reason, tell=tell)
        _show(byre, found, output)
    bad = [each for each in found if each.condition is not Condition.INTACT]
    for each in bad:
        say.error(f"base:{each.base.name}: {each.condition}: {each.why}")
    return 1 if bad else 0


@base_command.command("remove", epilog=options.epilog("byre base remove ubuntu"))
@_names_required
@options.reasoned
@options.output("table", "json")
@click.pass_obj
def remove_command(ctx: Context, *, names: tuple[str, ...], reason: str, output: str) -> None:
    """Take bases off the list; refused while a disk stands on one.

    A copy in the root is deleted. A file elsewhere stays, and stays read-only.
    """
    with _open(ctx) as byre:
        gone = basekeeping.remove(byre, names, reason=reason)
    if output == "json":
        say.machine([_facts(base) for base in gone])
    for base in gone:
        what = "its copy is deleted" if base.copied_from else f"{base.path} stays, read-only"
        say.person(f"base:{base.name}: removed; {what}")


def _open(ctx: Context) -> Byre:
    return Byre(ctx.root.path, settings=ctx.settings)


def _name(name: str | None, image: Path) -> DiskName:
    try:
        return disk_name(image.stem.lower() if name is None else name)
    except ValueError as error:
        hint = "" if name is not None else "; say --name"
        raise click.UsageError(f"{error}{hint}") from error


def _show(byre: Byre, found: Sequence[Listed], output: str) -> None:
    if output == "json":
        say.machine([_row(byre, each) for each in found])
        return
    say.table(
        ("NAME", "CONDITION", "SIZE", "SHA256", "FS-VERITY", "DISKS", "PATH"),
        [
            [
                each.base.name,
                f"{each.condition}: {each.why}" if each.why else each.condition.value,
                str(each.base.file.size),
                each.base.sha256[:_DIGITS],
                "on" if each.base.verity else "off",
                str(len(each.disks)),
                each.base.path,
            ]
            for each in found
        ],
    )


def _row(byre: Byre, listed: Listed) -> dict[str, Any]:
    allocated = byre.kernel.allocated(Path(listed.base.path)) if not listed.why else Bytes(0)
    return {
        **_facts(listed.base),
        "allocated_bytes": allocated.count,
        "condition": listed.condition.value,
        "why": listed.why or None,
        "disks": list(listed.disks),
    }


def _facts(base: Base) -> dict[str, Any]:
    return {
        "name": base.name,
        "path": base.path,
        "sha256": base.sha256,
        "size_bytes": base.file.size.count,
        "copied_from": base.copied_from or None,
        "method": base.method or None,
        "read_only": base.read_only,
        "verity": base.verity or None,
        "verity_why": base.verity_why or None,
        "added_at": iso(base.added_at),
        "verified_at": iso(base.verified_at) if base.verified_at else None,
    }

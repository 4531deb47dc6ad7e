"""`export` and `import`: disks that go to another host, and that come from one or from a peer."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler import carrying
from reconciler.adoption import Word
from reconciler.api import Byre
from reconciler.cli import describe, options, say
from reconciler.cli.annexing import Taking, take_over
from reconciler.cli.app import Context
from reconciler.cli.interrupting import ended_by_signals
from reconciler.cli.progress import byte_progress
from reconciler.cli.suspending import when_live_option
from reconciler.cli.wishing import claimed
from reconciler.peers import PEERS
from reconciler.source import WhenLive
from statemachine.spec import DriverChoice
from statemachine.units import Bytes


@click.command(
    "export",
    epilog=options.epilog("byre export sb-1 --delta /backup/sb-1.delta"),
)
@click.argument("name", shell_complete=options.complete_names)
@click.option(
    "--delta",
    "target",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The file to write.",
)
@when_live_option
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@options.reasoned
@options.output("table", "json")
@click.pass_obj
def export_command(
    ctx: Context,
    *,
    name: str,
    target: Path,
    when_live: str,
    force: bool,
    reason: str,
    output: str,
) -> None:
    """Write where a disk differs from its base into a compressed, checked file.

    The digest of the base is in it. `byre import` makes a disk of it again, on any host that has
    that base. The disk stays as it is: to move it, pause it before and remove it afterwards.
    """
    with (
        Byre(ctx.root.path, settings=ctx.settings) as byre,
        ended_by_signals(),
        byte_progress() as tell,
    ):
        made = carrying.export_delta(
            byre,
            name,
            target,
            when_live=WhenLive(when_live),
            replace=force,
            reason=reason,
            tell=tell,
        )
    if output == "json":
        say.machine(
            {
                "disk": name,
                "generation": made.record.generation,
                "file": str(made.path),
                "size_bytes": made.size,
                "changed_bytes": made.written.content_bytes,
                "blocks": made.written.blocks,
                "sha256": made.written.sha256,
                "base": str(made.record.wanted.base),
                "base_sha256": made.header.base_sha256,
                "frozen_ms": made.frozen_ns / 1e6,
            }
        )
    changed = Bytes(made.written.content_bytes)
    say.person(f"{name}: exported to {made.path}: {changed} changed, {Bytes(made.size)} packed")
    say.person(f"base: {made.header.base_sha256}")
    if made.frozen_ns:
        say.person(f"{name}: suspended for {made.frozen_ns / 1e6:.1f} ms")


@click.command(
    "import",
    epilog=options.epilog("byre import --delta sb-1.delta sb-1 --base /srv/images/ubuntu.ext4"),
)
@click.argument("name", metavar="NAME|wrenn|arcbox|ignite")
@click.argument("which", metavar="[THEIRS]...", nargs=-1)
@click.option(
    "--delta",
    "source",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What `byre export` wrote.",
)
@click.option("--base", metavar="IMG", help="The very image it was made on.")
@click.option(
    "--dry-run", is_flag=True, help="Show what there is to be taken over; change nothing."
)
@click.option(
    "--folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the other program keeps its files, if not in its usual place.",
)
@click.option("--as", "as_name", metavar="DISK", help="What the disk is called that is taken over.")
@click.option(
    "--driver",
    type=click.Choice([each.value for each in DriverChoice]),
    default=DriverChoice.AUTO.value,
    show_default=True,
    help="How it is built; auto takes dm-snapshot where the kernel has it.",
)
@options.reasoned
@claimed
@options.output("table", "json")
@click.pass_obj
def import_command(
    ctx: Context,
    *,
    name: str,
    which: tuple[str, ...],
    source: Path | None,
    base: str | None,
    dry_run: bool,
    folder: Path | None,
    as_name: str | None,
    driver: str,
    reason: str,
    on_behalf_of: str,
    output: str,
) -> int:
    """Make a disk of what `byre export` wrote, or take over the disks of another program.

    With --delta, NAME becomes a paused disk; `byre restore` brings it to life. Another base is
    refused by its digest, and so is a file that is not whole or not what was written. Then nothing
    is left behind.

    Without it, the disks that wrenn, arcbox or ignite have on this host become disks of this root,
    all of them or THEIRS, while they are in use: their devices keep their names and their users,
    their CoW files are moved into the root. --dry-run shows what there is.
    """
    if source is None:
        if name not in PEERS:
            allowed = ", ".join(PEERS)
            raise click.UsageError(f"{name}: say --delta FILE, or one of {allowed}")
        return take_over(
            ctx,
            Taking(
                peer=PEERS[name],
                which=which,
                word=Word(name=as_name or "", base=base or ""),
                folder=folder,
                reason=reason,
                on_behalf_of=on_behalf_of,
            ),
            dry_run=dry_run,
            output=output,
        )
    if base is None:
        raise click.UsageError("--delta needs --base IMG")
    if which or dry_run or folder or as_name:
        raise click.UsageError("THEIRS, --dry-run, --folder and --as do not go with --delta")
    with (
        Byre(ctx.root.path, settings=ctx.settings) as byre,
        ended_by_signals(),
    ):
        with byte_progress() as tell:
            made = carrying.import_delta(
                byre,
                name,
                source,
                base,
                driver=DriverChoice(driver),
                reason=reason,
                on_behalf_of=on_behalf_of,
                tell=tell,
            )
        if output == "json":
            say.machine([describe.disk(made.record, byre.kernel.allocated)])
    if made.fell_back_because:
        say.person(f"{name}: a clone, as {made.fell_back_because}")
    changed = Bytes(made.content_bytes)
    say.person(f"{name}: {made.record.state}, {changed} differ from its base; `byre restore` it")
    return 0

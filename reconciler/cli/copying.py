"""`flatten`: a disk becomes a new base image."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler import copying
from reconciler.api import Byre
from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.cli.interrupting import ended_by_signals
from reconciler.cli.progress import byte_progress
from reconciler.cli.suspending import when_live_option
from reconciler.source import WhenLive
from statemachine.units import Bytes

_force = click.option("--force", is_flag=True, help="Replace FILE if it is there.")


@click.command(
    "flatten",
    epilog=options.epilog(
        "byre flatten sb-1 /srv/images/golden.ext4",
        "byre flatten sb-1 golden.ext4 --live refuse --no-digest -o json",
    ),
)
@click.argument("name", shell_complete=options.complete_names)
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@when_live_option
@_force
@click.option(
    "--digest/--no-digest",
    "with_digest",
    default=True,
    show_default=True,
    help="Whether the SHA-256 of the image is told; that reads all of it.",
)
@options.reasoned
@options.output("table", "json")
@click.pass_obj
def flatten_command(
    ctx: Context,
    *,
    name: str,
    target: Path,
    when_live: str,
    force: bool,
    with_digest: bool,
    reason: str,
    output: str,
) -> None:
    """Write what a disk shows into a new, sparse base image, byte for byte.

    The base is shared by reflink where the file system can, else only what is allocated is copied;
    then what has changed is laid over it. FILE is there when it is whole and durable, or not at
    all. A live disk is suspended while its CoW file is copied, which is at once with reflinks.
    """
    with (
        Byre(ctx.root.path, settings=ctx.settings) as byre,
        ended_by_signals(),
        byte_progress() as tell,
    ):
        made = copying.flatten(
            byre,
            name,
            target,
            when_live=WhenLive(when_live),
            replace=force,
            with_digest=with_digest,
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
                "allocated_bytes": made.allocated,
                "sha256": made.sha256 or None,
                "method": made.method,
                "frozen_ms": made.frozen_ns / 1e6,
            }
        )
    took = f"{Bytes(made.allocated)} of {Bytes(made.size)} allocated, base by {made.method}"
    say.person(f"{name}: flattened to {made.path}: {took}")
    if made.frozen_ns:
        say.person(f"{name}: suspended for {made.frozen_ns / 1e6:.1f} ms")
    if made.sha256:
        say.person(f"sha256: {made.sha256}")

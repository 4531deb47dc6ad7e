"""`completion`: the script that a shell reads to complete byre's commands, options and disks."""

from __future__ import annotations

import sys

import click
from click.shell_completion import get_completion_class

from reconciler.cli import options


@click.command(
    "completion",
    epilog=options.epilog(
        "byre completion bash > /etc/bash_completion.d/byre", 'eval "$(byre completion zsh)"'
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(ctx: click.Context, *, shell: str) -> None:
    """Print the completion script of a shell."""
    kind = get_completion_class(shell)
    assert kind is not None, "click has these three"
    sys.stdout.write(kind(ctx.find_root().command, {}, "byre", "_BYRE_COMPLETE").source() + "\n")

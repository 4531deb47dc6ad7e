"""`udev-rules`: the rules file that keeps udev from looking into sandboxes."""

from __future__ import annotations

import sys

import click

from reconciler import udev
from reconciler.cli import options


@click.command(
    "udev-rules",
    epilog=options.epilog(f"byre udev-rules > /etc/udev/rules.d/{udev.NAME}"),
)
def udev_rules_command() -> None:
    """Print the rules that keep udev and blkid from looking into the disks of sandboxes."""
    sys.stdout.write(udev.rules())

"""The option of the commands that read a disk's content: what to do if it is live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from reconciler.source import WhenLive

F = TypeVar("F", bound=Callable[..., Any])


def when_live_option(command: F) -> F:
    """Add `--live`."""
    return click.option(
        "--live",
        "when_live",
        type=click.Choice([each.value for each in WhenLive]),
        default=WhenLive.SUSPEND.value,
        show_default=True,
        help="Whether a live disk is suspended for a moment, or refused.",
    )(command)

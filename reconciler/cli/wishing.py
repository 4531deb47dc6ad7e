"""The options of a wish: whether to wait for it, why it is asked for, and for whom."""

from __future__ import annotations

import functools
from typing import Any

import attrs
import click

from reconciler.cli.options import F, output, reasoned, waiting
from reconciler.requester import checked_claim


def claimed(command: F) -> F:
    """Add `--on-behalf-of`."""
    return click.option(
        "--on-behalf-of",
        default="",
        metavar="TEXT",
        callback=_claim,
        help="For whom; recorded as a claim beside who really asked.",
    )(command)


def _claim(ctx: click.Context, option: click.Parameter, text: str) -> str:
    del ctx, option
    return checked_claim(text)


@attrs.frozen(kw_only=True)
class Wish:
    """What a command that declares something was told besides what it declares."""

    wait: bool
    timeout_s: float
    reason: str
    on_behalf_of: str
    output: str


def wishing(command: F) -> F:
    """Add `--wait`, `--timeout`, `--reason`, `--on-behalf-of`, `-o`; the command gets a `wish`."""

    @functools.wraps(command)
    def wrapped(*arguments: object, **given: object) -> object:
        told: dict[str, Any] = {field: given.pop(field) for field in attrs.fields_dict(Wish)}
        return command(*arguments, wish=Wish(**told), **given)

    made: Any = wrapped
    for option in (output("table", "json"), claimed, reasoned, waiting):
        made = option(made)
    found: F = made
    return found

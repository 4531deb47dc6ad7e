"""The options of a question to the log, for every command that looks for events."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import attrs
import click

from reconciler.cli.options import F, Moment
from statemachine.machine import Trigger
from statemachine.questions import OUTCOMES, Question

_CORRELATION: Final = re.compile(r"[0-9a-f]{4,32}")


def _correlation(ctx: click.Context, option: click.Parameter, text: str | None) -> str | None:
    del ctx, option
    if text is not None and _CORRELATION.fullmatch(text.lower()) is None:
        msg = f"{text!r} is no correlation id; allowed: its first 4 to 32 hex digits"
        raise click.BadParameter(msg)
    return text.lower() if text is not None else None


_ASKING: Final = (
    click.option("--generation", type=click.IntRange(min=0), help="Only this life of the disk."),
    click.option("--since", type=Moment(), help="Only events from this time on."),
    click.option("--until", type=Moment(), help="Only events before this time."),
    click.option("--type", help="A type (disk.declared) or its first word (transition)."),
    click.option(
        "--trigger", type=click.Choice([each.value for each in Trigger]), help="Only of this one."
    ),
    click.option(
        "--actor", metavar="WHO", help="A user's name, 'uid:1000', or 'reconciler' for byre itself."
    ),
    click.option("--on-behalf-of", metavar="TEXT", help="Only what was asked for with this claim."),
    click.option(
        "--correlation",
        callback=_correlation,
        metavar="ID",
        help="A request, with all that followed from it; the first 4 digits or more.",
    ),
    click.option(
        "--outcome",
        type=click.Choice(list(OUTCOMES)),
        help="Only transitions that ended so; failed ones also by consequence.",
    ),
    click.option("--text", metavar="TEXT", help="Part of the reason or the data, in any case."),
    click.option(
        "--after", type=click.IntRange(min=0), default=0, metavar="SEQ", help="Go on after this."
    ),
    click.option("--before", type=click.IntRange(min=1), metavar="SEQ", help="Go on before this."),
)


def asking(command: F) -> F:
    """Add every filter of a question; the command gets them as one `question`."""

    @functools.wraps(command)
    def wrapped(*arguments: object, **given: object) -> object:
        asked: dict[str, Any] = {key: given.pop(key) for key in _QUESTION_FIELDS & given.keys()}
        return command(*arguments, question=Question(**asked), **given)

    made: Any = wrapped
    for option in reversed(_ASKING):
        made = option(made)
    found: F = made
    return found


_QUESTION_FIELDS: Final = frozenset(attrs.fields_dict(Question)) - {"disk", "newest_first"}

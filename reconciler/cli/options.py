"""Options and arguments that several commands share, and the completion of disk names."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import click

from reconciler.config import Root
from reconciler.requester import checked_claim
from statemachine.errors import ByreError, UsageError
from statemachine.machine import Trigger
from statemachine.questions import OUTCOMES, Question

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_TIMEOUT_S: Final = 60.0
TIMEOUT_S_MAX: Final = 86_400.0

_CORRELATION: Final = re.compile(r"[0-9a-f]{4,32}")
_RELATIVE: Final = re.compile(r"(\d{1,9})\s*([a-z]+?)s?(?:\s+ago)?", re.IGNORECASE)
_UNITS: Final = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "m": 60,
    "min": 60,
    "minute": 60,
    "h": 3600,
    "hour": 3600,
    "d": 86_400,
    "day": 86_400,
    "w": 604_800,
    "week": 604_800,
}


class Moment(click.ParamType[int]):
    """A moment: ISO 8601 (local time without an offset), or "2 hours ago", "90s", "3d"."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return UTC in ns."""
        if isinstance(value, int):
            return value
        text = str(value).strip()
        relative = _RELATIVE.fullmatch(text)
        unit = relative[2].lower() if relative else ""
        try:
            if relative and unit in _UNITS:
                moment = datetime.now(UTC) - timedelta(seconds=int(relative[1]) * _UNITS[unit])
            else:
                moment = datetime.fromisoformat(text).astimezone()
            return int(moment.timestamp() * 1_000_000) * 1000
        except (ValueError, OverflowError):
            allowed = "an ISO 8601 time (2026-11-21T08:00), or '2 hours ago', '90s', '3d'"
            self.fail(f"{text!r} is not a time; allowed: {allowed}", param, ctx)


def waiting(command: F) -> F:
    """Add `--wait` and `--timeout`."""
    command = click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(0, TIMEOUT_S_MAX),
        default=DEFAULT_TIMEOUT_S,
        show_default=True,
        metavar="S",
        help="How long --wait waits, in seconds.",
    )(command)
    return click.option(
        "--wait", "wait", is_flag=True, help="Return when the disks are there, or time is over."
    )(command)


def reasoned(command: F) -> F:
    """Add `--reason`."""
    return click.option(
        "--reason", default="", metavar="TEXT", help="Why; recorded with what is asked for."
    )(command)


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


archives = click.option(
    "--archive",
    "archives",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Look into an archive of this log as well; may be given several times.",
)


def output(*choices: str) -> Callable[[F], F]:
    """Add `-o`; the first choice is the default."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(choices),
        default=choices[0],
        show_default=True,
        help="How to answer; tables go to stderr, JSON to stdout.",
    )


def names(*, required: bool) -> Callable[[F], F]:
    """Add `NAME…`, completed with the disks of the root."""
    return click.argument(
        "names", nargs=-1, required=required, metavar="NAME...", shell_complete=complete_names
    )


def complete_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the disks of the root whose names begin so; nothing when the log cannot be read."""
    del param
    from statemachine.logreader import LogReader  # noqa: PLC0415 - only while completing

    given = ctx.find_root().params.get("root")
    root = Root(Path(given)) if given else Root.from_environment(os.environ, uid=os.getuid())
    try:
        with LogReader(root.log) as log:
            found = [record.name for record in log.records()]
    except ByreError:
        return []
    return [name for name in found if name.startswith(incomplete)]


def jail_table(text: str) -> dict[str, object]:
    """Return ROOT:NODE:UID:GID as the table of a spec; the folder's name may have colons itself.

    Raises:
        UsageError: there are not four parts, or the last two are no whole numbers.
    """
    fields = ("root", "node", "uid", "gid")
    parts = text.rsplit(":", len(fields) - 1)
    if len(parts) != len(fields) or not all(number.isdecimal() for number in parts[2:]):
        msg = f"--jail: found {text!r:.200}; allowed: ROOT:NODE:UID:GID, with two whole numbers"
        raise UsageError(msg)
    root, node, uid, gid = parts
    return {"root": root, "node": node, "uid": int(uid), "gid": int(gid)}


def epilog(*examples: str) -> str:
    """Return the examples that end a command's help."""
    lines = "\n".join(f"  {example}" for example in examples)
    return f"\b\nExample{'s' if len(examples) > 1 else ''}:\n{lines}"

"""Options and arguments that several commands share, and the completion of disk names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from reconciler.root import Root
from statemachine.errors import ByreError, UsageError

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_TIMEOUT_S: Final = 60.0
TIMEOUT_S_MAX: Final = 86_400.0

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

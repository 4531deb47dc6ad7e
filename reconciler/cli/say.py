"""How the command line speaks: JSON to stdout for machines, all else to stderr for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import click

from statemachine.errors import ByreError


def machine(data: object) -> None:
    """Print one JSON document to stdout; see `document`."""
    line(document(data))


def document(data: object) -> str:
    """Return one JSON document: a list with each thing on a line, anything else indented.

    Python's encoder takes five times as long to indent, and a list may be of thousands. What
    yields its things one by one is a list, too, of which only the text is ever there as a whole.
    """
    if isinstance(data, list | Iterator):
        lines = [_ENCODER.encode(each) for each in data]
        return "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"
    return json.dumps(data, indent=2, ensure_ascii=False)


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False)


def line(text: str) -> None:
    """Print a line that scripts read to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def machine_line(data: object) -> None:
    """Print one JSON document to stdout, as one line."""
    sys.stdout.write(one_line(data))
    sys.stdout.flush()


def one_line(data: object) -> str:
    """Return one JSON document in one line, with its end."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False) + "\n"


def machine_text(text: str) -> None:
    """Print a piece of a longer answer to stdout as it is; whoever prints it flushes at the end."""
    sys.stdout.write(text)


def flush() -> None:
    """Have machines see what was printed until now."""
    sys.stdout.flush()


def person(text: str) -> None:
    """Print a sentence to stderr."""
    click.echo(text, err=True)


def error(text: str, hint: str = "") -> None:
    """Print an error to stderr, and what to do about it."""
    for line in text.splitlines() or [""]:
        click.echo(f"{click.style('byre: error:', fg='red', bold=True)} {line}", err=True)
    if hint:
        click.echo(f"  hint: {hint}", err=True)


def failure(failed: ByreError) -> None:
    """Print one of our errors."""
    error(failed.message, failed.hint)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """Print a table to stderr; without a terminal it is never cut or wrapped."""
    from rich.console import Console  # noqa: PLC0415 - rich is slow to import

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    console.print(make_table(columns, rows, title=title))


def make_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> object:
    """Return a rich table; text is taken literally."""
    from rich import box  # noqa: PLC0415 - rich is slow to import
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def ago(at_ns: int, now_ns: int) -> str:
    """Return how long ago something was: "3s", "12m", "5h", "3d"."""
    seconds = max(0, (now_ns - at_ns) // 1_000_000_000)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


_SPANS = ((86_400 * 10**9, "d"), (3_600 * 10**9, "h"), (60 * 10**9, "m"), (10**9, "s"))


def duration(span_ns: int) -> str:
    """Return how long something lasted, to three figures: "12.3 ms", "4.50 h"."""
    for size, unit in (*_SPANS, (10**6, "ms")):
        if span_ns >= size:
            return f"{span_ns / size:#.3g} {unit}".replace(". ", " ")
    return f"{span_ns / 1000:.0f} µs"


def local_time(at_ns: int) -> str:
    """Return a moment in local time, to the millisecond."""
    moment = datetime.fromtimestamp(at_ns / 1e9, UTC).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S}.{at_ns // 1_000_000 % 1000:03d}"

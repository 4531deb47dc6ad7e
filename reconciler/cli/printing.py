"""Printing events one after the other, in bounded memory: a table, JSON, JSON lines or CSV.

May be imported by the package.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from typing import Final, Protocol

from reconciler.cli import say
from reconciler.cli.wording import what, who
from statemachine.events import Event
from statemachine.questions import as_json, as_text
from statemachine.schema import CORRELATION_CHARS, EVENT_COLUMNS

HEADER: Final = ("SEQ", "TIME", "DISK", "GEN", "EVENT", "ACTOR", "REQUEST", "WHAT")
ROWS_AT_ONCE: Final = 500
"""How many rows of a table are laid out together; their widths are kept for the next ones."""


class Printer(Protocol):
    """Takes events and prints them, at the latest when it is told to."""

    def event(self, event: Event) -> None:
        """Take the next event."""
        ...

    def flush(self) -> None:
        """Print what is still held back."""
        ...

    def end(self) -> None:
        """Print the rest; nothing comes after it."""
        ...


def printer(output: str) -> Printer:
    """Return what prints in a form: "table", "json", "jsonl" or "csv"."""
    made: dict[str, type[Printer]] = {
        "table": _Table,
        "json": _Array,
        "jsonl": _Lines,
        "csv": _Csv,
    }
    return made[output]()


class _Lines:
    def event(self, event: Event) -> None:
        say.machine_text(say.one_line(as_json(event)))

    def flush(self) -> None:
        say.flush()

    def end(self) -> None:
        self.flush()


class _Array(_Lines):
    """One JSON document, an array, written as the events come."""

    def __init__(self) -> None:
        self._is_first = True

    def event(self, event: Event) -> None:
        text = json.dumps(as_json(event), indent=2, ensure_ascii=False)
        say.machine_text(("[\n" if self._is_first else ",\n") + text)
        self._is_first = False

    def end(self) -> None:
        say.machine_text("[]\n" if self._is_first else "\n]\n")
        self.flush()


class _Stdout:
    """What the csv module writes to."""

    def write(self, text: str) -> None:
        say.machine_text(text)


class _Csv(_Lines):
    """RFC 4180: a header, CR LF, quotes where they are needed; `data` is the text of its JSON."""

    def __init__(self) -> None:
        self._writer = csv.writer(_Stdout(), lineterminator="\r\n")
        self._writer.writerow(EVENT_COLUMNS)

    def event(self, event: Event) -> None:
        self._writer.writerow(as_text(event).values())


class _Table:
    def __init__(self) -> None:
        self._widths = [0] * len(HEADER)
        self._rows: list[Sequence[str]] = []
        self._has_header = False

    def event(self, event: Event) -> None:
        self._rows.append(row(event))
        if len(self._rows) >= ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if not self._has_header:
            self._rows.insert(0, HEADER)
            self._has_header = True
        for each in self._rows:
            self._widths = [max(pair) for pair in zip(self._widths, map(len, each), strict=True)]
        for each in self._rows:
            cells = (cell.ljust(width) for cell, width in zip(each, self._widths, strict=True))
            say.person("  ".join(cells).rstrip())
        self._rows = []

    def end(self) -> None:
        self.flush()


def row(event: Event) -> list[str]:
    """Return the cells of an event, as people read them; none has a control character."""
    cells = [
        str(event.seq),
        say.local_time(event.at),
        event.disk,
        str(event.generation) if event.generation else "-",
        event.type,
        who(event),
        event.correlation_id[:CORRELATION_CHARS] or "-",
        what(event),
    ]
    return [plain(cell) for cell in cells]


def plain(text: str) -> str:
    """Return a text in one line: what somebody put into a reason must not drive a terminal."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )

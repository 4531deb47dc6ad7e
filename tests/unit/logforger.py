"""Whoever can write to the file of a log: takes the guards away and writes what rows it likes.

May be imported by tests.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from statemachine.events import chain_hash
from statemachine.schema import EVENT_COLUMNS

Row = tuple[object, ...]
"""The columns of one event, `seq` first and `hash` last."""


def rows_of(path: Path) -> list[Row]:
    """Return all rows of a log, in their order."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return raw.execute(f"SELECT {', '.join(EVENT_COLUMNS)} FROM events ORDER BY seq").fetchall()  # noqa: S608 - constants


def write_rows(path: Path, rows: Sequence[Row], *, key: str = "INTEGER PRIMARY KEY") -> None:
    """Replace all rows; the new table takes any type, and with another `key` any place."""
    others = ", ".join(list(EVENT_COLUMNS)[1:])
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        for (view,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'view'").fetchall():
            raw.execute(f"DROP VIEW {view}")
        raw.execute("DROP TABLE events")
        raw.execute(f"CREATE TABLE events (seq {key}, {others})")
        places = ", ".join("?" * len(EVENT_COLUMNS))
        raw.executemany(f"INSERT INTO events VALUES ({places})", rows)  # noqa: S608 - constants


def placed(row: Row, seq: object) -> Row:
    """Return a row in another place, its hash as it was."""
    return (seq, *row[1:])


def with_column(row: Row, name: str, value: object) -> Row:
    """Return a row with one column changed, its hash as it was unless that is the column."""
    at = list(EVENT_COLUMNS).index(name)
    return (*row[:at], value, *row[at + 1 :])


def sealed(row: Row, prev_hash: object) -> Row:
    """Return a row that follows another one, with the hash that its columns have then."""
    covered = (*row[:-2], prev_hash)
    return (*covered, chain_hash(covered))


def resealed(rows: Sequence[Row], prev_hash: object) -> list[Row]:
    """Return rows that follow each other, the first one another event."""
    made: list[Row] = []
    for row in rows:
        made.append(sealed(row, prev_hash))
        prev_hash = made[-1][-1]
    return made

"""The two ends of a log: the event that it begins after, and whether its newest is still there.

Works on a connection, reads only. May be imported by logreader and what stands above it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from statemachine.events import GENESIS, Event, check_hash
from statemachine.head import Head, Noted
from statemachine.schema import SELECT_NEWEST, has_table

if TYPE_CHECKING:
    import sqlite3


def begin(connection: sqlite3.Connection) -> Noted:
    """Return the event before a log's first one: the last one in an archive; seq 0 if none is."""
    if not has_table(connection, "archives"):
        return Noted(0, GENESIS)
    query = "SELECT last_seq, last_hash FROM archives ORDER BY last_seq DESC LIMIT 1"
    row = connection.execute(query).fetchone()
    return Noted(int(row[0]), str(row[1])) if row else Noted(0, GENESIS)


def check_end(connection: sqlite3.Connection, path: Path, noted: Noted | None) -> None:
    """Check that the newest event is what was written, and that no acknowledged one is gone.

    Args:
        connection: to the log.
        path: the log's file.
        noted: what the head said before the log was opened: others append meanwhile.

    Raises:
        LogDamaged: with the seq of the first bad or missing event.
    """
    row = connection.execute(SELECT_NEWEST).fetchone()
    newest = 0
    if row is not None:
        check_hash(Event(*row))
        newest = int(row[0])
    if noted is not None:
        one = "SELECT hash FROM events WHERE seq = ?"
        if noted.seq <= begin(connection).seq:
            return  # it is in an archive by now
        found = connection.execute(one, (noted.seq,)).fetchone()
        Head.of(path).check(noted, newest=newest, found=found[0] if found else "")

"""Whether `clock_steps` says what the events do: where the clock was set back.

The table is made of the events and is no part of the chain, but a question by time goes by it: a
row too few would hide events from it. May be imported by repair and `reconciler`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from statemachine.errors import LogDamaged
from statemachine.logreader import LogReader
from statemachine.schema import PAST_CLOCK_STEPS

if TYPE_CHECKING:
    import sqlite3

_WENT_BACK: Final = "e.at < (SELECT at FROM events AS before WHERE before.seq = e.seq - 1)"
_NOT_NOTED: Final = (
    "SELECT seq FROM events AS e WHERE seq > ? "  # noqa: S608 - constants
    f"AND {_WENT_BACK} AND seq NOT IN (SELECT seq FROM clock_steps) ORDER BY seq LIMIT 1"
)
_NOTED_WRONGLY: Final = (
    "SELECT seq FROM clock_steps WHERE seq > ? AND NOT EXISTS "  # noqa: S608 - constants
    f"(SELECT 1 FROM events AS e WHERE e.seq = clock_steps.seq AND {_WENT_BACK}) "
    "ORDER BY seq LIMIT 1"
)
_WAY_OUT: Final = "the events decide: `byre replay --repair` writes it anew"


def check(log: LogReader) -> None:
    """Check the table against the events; a log of an older schema that is only read has none.

    Raises:
        LogDamaged: with the first event that it is wrong about.
    """
    if not log.rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'clock_steps'"):
        return
    # Of the first event nobody knows what went before: that is in an archive.
    [(first,)] = log.rows("SELECT coalesce(min(seq), 0) FROM events")
    begin = max(first, log.begins_after().seq + 1)
    for query, what in (
        (_NOT_NOTED, "is not in `clock_steps`, and the clock was set back before it"),
        (_NOTED_WRONGLY, "is in `clock_steps`, and the clock was not set back before it"),
    ):
        if found := log.rows(query, begin):
            msg = f"event {found[0][0]} {what}"
            raise LogDamaged(msg, seq=int(found[0][0]), hint=_WAY_OUT)


def rebuild(connection: sqlite3.Connection) -> None:
    """Write the table anew, in the transaction that there is."""
    connection.execute("DELETE FROM clock_steps")
    connection.execute(PAST_CLOCK_STEPS)

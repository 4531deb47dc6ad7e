"""Making anew what is made of the events: records, checkpoints, and where the clock was set back.

The events stay as they are, and so does the checkpoint that a log begins with when its oldest
events are in an archive: of those there is nothing else here to make it of.
May be imported by salvage and `reconciler.cli`.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from statemachine import basetable, checkpoints, clocksteps, diskrows, logends, schema, timetravel
from statemachine.eventlog import EventLog
from statemachine.roster import Roster

if TYPE_CHECKING:
    import sqlite3

_RECORDS_AT_ONCE = 1000


def rebuild(log: EventLog) -> int:
    """Throw records and checkpoints away and make them again from the events, in one transaction.

    One checkpoint is made, of the newest event; others are when they are due.

    Returns:
        How many disks there are, removed ones too.

    Raises:
        LogDamaged: the events do not fit together, or what the log begins with is damaged.
    """
    return log.transact(_rebuild)


def _rebuild(connection: sqlite3.Connection) -> int:
    begin, count = logends.begin(connection), 0
    with Roster() as roster:
        start = timetravel.first_start(connection)
        timetravel.load(connection, roster, start, everything=True)
        roster.replay(timetravel.events_between(connection, begin.seq))
        connection.execute("DELETE FROM disks")
        records = roster.records()
        while page := list(itertools.islice(records, _RECORDS_AT_ONCE)):
            diskrows.write(connection, page)
            count += len(page)
    clocksteps.rebuild(connection)
    basetable.write(connection, basetable.replayed(connection))
    with schema.upkeep(connection):
        connection.execute("DELETE FROM checkpoints WHERE seq > ?", (begin.seq,))
    if (made := checkpoints.draft(connection)) is not None:
        checkpoints.insert(connection, made)
    return count

"""Writing a log of given events into a new file: what is left of one, or how far it was replayed.

The events keep their places and hashes. The records are made of them, and so they fit, whatever
another log had. May be imported by salvage and replaying.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from statemachine import checkpoints, database, logends, repair, schema, timetravel
from statemachine.batch import write_events
from statemachine.checkpoints import Checkpoint
from statemachine.errors import RefusedError
from statemachine.eventlog import EventLog
from statemachine.events import Event
from statemachine.head import HEAD_NAME, Noted
from statemachine.schema import ARCHIVE_COLUMNS

if TYPE_CHECKING:
    import sqlite3

_EVENTS_AT_ONCE: Final = 1000
_COLUMNS: Final = ", ".join(ARCHIVE_COLUMNS)
ARCHIVES: Final = f"SELECT {_COLUMNS} FROM archives ORDER BY last_seq"  # noqa: S608 - constants
_INSERT: Final = (
    f"INSERT INTO archives ({_COLUMNS}) "  # noqa: S608 - constants
    f"VALUES ({', '.join('?' * len(ARCHIVE_COLUMNS))})"
)


@attrs.frozen
class Beginning:
    """What a log begins with: nothing, or a checkpoint after what is in archives."""

    base: Checkpoint | None = None
    archives: Sequence[tuple[object, ...]] = ()

    @property
    def seq(self) -> int:
        """The seq of the event that it begins after."""
        return self.base.seq if self.base else 0


def beginning(connection: sqlite3.Connection) -> Beginning:
    """Return what a log begins with; raises LogDamaged when that is not what was written."""
    base = timetravel.first_start(connection)
    return Beginning(base, connection.execute(ARCHIVES).fetchall()) if base else Beginning()


def insert_archive(connection: sqlite3.Connection, row: Sequence[object]) -> None:
    """Write one row of `archives`; the guards refuse what does not follow."""
    connection.execute(_INSERT, row)


def refuse_taken(target: Path, what: str) -> None:
    """Refuse a target where something is, or a log beside it; raises RefusedError."""
    for taken in (target, target.with_name(HEAD_NAME)):
        if taken.exists() or taken.is_symlink():
            msg = f"{taken} exists; {what} written to a new file in another folder"
            raise RefusedError(msg, hint="name a file in an empty folder")


def write(target: Path, *, root_id: str, begin: Beginning, events: Iterable[Event]) -> int:
    """Write a log.

    Args:
        target: the new file.
        root_id: whose log it is; "" to give it an identity of its own.
        begin: what it begins with.
        events: those that follow, in order.

    Returns:
        How many disks there are.

    Raises:
        LogUnavailable: the target cannot be written.
        LogDamaged: the events do not fit together.
    """
    connection = database.open_log(target, read_only=False)
    try:
        with database.told_apart(target), database.write_lock(connection):
            head = _fill(connection, root_id, begin, events)
    finally:
        connection.close()
    with EventLog(target) as made:
        disks = repair.rebuild(made)
        made.head.note(head)
    return disks


def _fill(
    connection: sqlite3.Connection, root_id: str, begin: Beginning, events: Iterable[Event]
) -> Noted:
    if root_id:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'root_id'", (root_id,))
    if begin.base is not None:
        with schema.unguarded(connection):  # what it stands on is in an archive
            checkpoints.insert(connection, begin.base)
            connection.executemany(_INSERT, begin.archives)
    left = iter(events)
    while page := list(itertools.islice(left, _EVENTS_AT_ONCE)):
        write_events(connection, page)
    query = "SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1"
    row = connection.execute(query).fetchone()
    return Noted(int(row[0]), str(row[1])) if row else logends.begin(connection)

"""The rows of the table `disks`: a record becomes one, and one becomes a record.

Works on a connection; begins and commits nothing. May be imported by logreader and what stands
above it in `statemachine`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from statemachine import recent
from statemachine.errors import LogDamaged
from statemachine.events import json_object
from statemachine.record import Record, from_row, to_text
from statemachine.schema import DISK_COLUMNS

if TYPE_CHECKING:
    import sqlite3

SELECT_RECORD: Final = "SELECT record FROM disks WHERE name = ?"
_KEY: Final = ("name", "id")
"""What no event changes but the first one of a generation: the first columns, each in an index of
its own. To set one is to write its index, with the same text as well, so `move` leaves them."""
_MOVING: Final = tuple(column for column in DISK_COLUMNS if column not in _KEY)
_UPSERT: Final = (
    f"INSERT INTO disks ({', '.join(DISK_COLUMNS)}) "  # noqa: S608 - constants
    f"VALUES ({', '.join('?' * len(DISK_COLUMNS))}) ON CONFLICT(name) DO UPDATE SET "
    f"{', '.join(f'{column} = excluded.{column}' for column in DISK_COLUMNS if column != 'name')}"
)
_MOVE: Final = (
    f"UPDATE disks SET {', '.join(f'{column} = ?' for column in _MOVING)} "  # noqa: S608 - constants
    "WHERE name = ?"
)


def known_record(text: object) -> Record:
    """Return a record as `read_record` does; one that was read or written a moment ago is at hand.

    For who works on a disk. Who proves the table reads what it says.
    """
    record = recent.find(str(text))
    if record is None:
        record = read_record(text)
        recent.keep(str(text), record)
    return record


def read_record(text: object) -> Record:
    """Return a record as the table `disks` has it; raises LogDamaged when it cannot be read."""
    try:
        return from_row(json_object(str(text), "it"))
    except ValueError as error:
        msg = f"a record of the table `disks` cannot be read: {error}"
        raise LogDamaged(msg, hint="the events decide: `byre replay --repair`") from error


def write(connection: sqlite3.Connection, records: Iterable[Record]) -> None:
    """Write the rows of some disks, over those of the same names."""
    connection.executemany(_UPSERT, [_row(record) for record in records])


def move(connection: sqlite3.Connection, records: Iterable[Record]) -> None:
    """Write the rows of disks that have one, of the same generation."""
    connection.executemany(_MOVE, [(*_moving(record), record.name) for record in records])


def _row(record: Record) -> tuple[object, ...]:
    return (record.name, record.id, *_moving(record))


def _moving(record: Record) -> tuple[object, ...]:
    failure, text = record.failure, to_text(record)
    recent.keep(text, record)
    return (
        record.generation,
        record.version,
        record.seq,
        str(record.state),
        str(record.desired),
        record.driver,
        record.spec["base"],
        record.device,
        record.attempts,
        failure.retry_at if failure else None,
        record.updated_at,
        text,
    )

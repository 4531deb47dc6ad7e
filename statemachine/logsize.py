"""How large a log is: rows, bytes, and what of it is in archives. Reads only.

May be imported by `reconciler`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from statemachine import checkpoints, logends, newlog, schema, timetravel
from statemachine.logreader import LogReader
from statemachine.schema import ARCHIVE_COLUMNS

if TYPE_CHECKING:
    import sqlite3


@attrs.frozen(kw_only=True)
class ArchiveRow:
    """One row of `archives`. Times are UTC in ns."""

    last_seq: int
    last_hash: str
    first_seq: int
    prev_hash: str
    first_at: int
    last_at: int
    file: str
    digest: str
    archived_at: int


@attrs.frozen(kw_only=True)
class LogSize:
    """What there is, at one moment."""

    schema: int
    events: int
    first_seq: int
    last_seq: int
    disks: int
    removed: int
    checkpoints: int
    checkpoint_bytes: int
    file_bytes: int
    free_bytes: int
    """Of the file: what was deleted and not given back to the file system."""
    wal_bytes: int
    archives: tuple[ArchiveRow, ...]

    @property
    def bytes_per_event(self) -> float:
        """What one event takes, with indexes, records and checkpoints."""
        return (self.file_bytes - self.free_bytes) / max(1, self.events)


def measure(log: LogReader) -> LogSize:
    """Measure an open log."""
    with log.frozen() as connection:
        begin, last = logends.begin(connection).seq, timetravel.newest_seq(connection)
        disks, removed = _row(connection, "SELECT count(*), total(state = 'removed') FROM disks")
        made, packed = 0, 0
        rows: list[tuple[object, ...]] = []
        if checkpoints.exist(connection):
            query = "SELECT count(*), total(length(living) + length(gone)) FROM checkpoints"
            made, packed = _row(connection, query)
            rows = connection.execute(newlog.ARCHIVES).fetchall()
        page_bytes = _row(connection, "PRAGMA page_size")[0]
        return LogSize(
            schema=schema.version_of(connection),
            events=last - begin,
            first_seq=begin + 1,
            last_seq=last,
            disks=disks,
            removed=removed,
            checkpoints=made,
            checkpoint_bytes=packed,
            file_bytes=page_bytes * _row(connection, "PRAGMA page_count")[0],
            free_bytes=page_bytes * _row(connection, "PRAGMA freelist_count")[0],
            wal_bytes=_size_bytes(log.path.with_name(f"{log.path.name}-wal")),
            archives=tuple(map(_archive, rows)),
        )


def _row(connection: sqlite3.Connection, query: str) -> tuple[int, ...]:
    return tuple(map(int, connection.execute(query).fetchone()))


def _archive(row: tuple[object, ...]) -> ArchiveRow:
    values: dict[str, object] = dict(zip(ARCHIVE_COLUMNS, row, strict=True))
    return ArchiveRow(**values)  # type: ignore[arg-type]


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0

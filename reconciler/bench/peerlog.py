"""A disk's events in the package `eventsourcing`, as its documentation has an application do it.

The package is no part of what byre needs; the bench imports this module where it is installed.
SQLite is set up as in byre's log: WAL, and `synchronous` FULL, so that a save is on disk when it
returns. The events have the same columns and data, without a chain of hashes. May be imported by
the package only, when `eventsourcing` is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event


class PeerDisk(Aggregate):  # type: ignore[misc] # the package may be missing
    """What a disk is, by its newest event."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.newest: Mapping[str, Any] = {}

    @event("Happened")  # type: ignore[untyped-decorator]
    def happened(self, columns: Mapping[str, Any]) -> None:
        """Take an event in: the columns of byre's log, with `data` as plain data."""
        self.newest = columns


class PeerLog:
    """An application with an SQLite file of its own. Close it."""

    def __init__(self, path: Path, *, writers: int) -> None:
        self._application = Application(
            env={
                "PERSISTENCE_MODULE": "eventsourcing.sqlite",
                "SQLITE_DBNAME": str(path),
                "SQLITE_POOL_SIZE": str(writers),
                "SQLITE_LOCK_TIMEOUT": "60",
            }
        )
        # FULL (2) is what SQLite has for every connection that says nothing else.
        with self._application.recorder.datastore.transaction(commit=False) as cursor:
            for name, wanted in _SETTINGS.items():
                cursor.execute(f"PRAGMA {name}")
                found = cursor.fetchone()[0]
                assert found == wanted, (name, found)

    def close(self) -> None:
        """Close its connections."""
        self._application.close()

    def declare(self, name: str) -> PeerDisk:
        """Make a disk, on disk when this returns."""
        disk = PeerDisk(name)
        self._application.save(disk)
        return disk

    def append(self, disk: PeerDisk, some: list[Mapping[str, Any]]) -> None:
        """Append events of one disk in one transaction, on disk when this returns."""
        for columns in some:
            disk.happened(columns)
        self._application.save(disk)

    def rebuild(self, identity: UUID) -> PeerDisk:
        """Return a disk as it is now: all of its events are read and applied."""
        found: PeerDisk = self._application.repository.get(identity)
        return found


_SETTINGS = {"journal_mode": "wal", "synchronous": 2}

"""The records of the disks in use, kept in memory by a running reconciler.

To read a record takes a hundred times as long as to see that it has not changed, and a resync is
about disks that have not. What the log has is asked for at each resync, so a commit that nobody
told of is made good then. May be imported by daemon.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from reconciler.outcome import is_gone
from statemachine.eventlog import EventLog
from statemachine.record import Record


class Known:
    """Records by name. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}

    def update(self, records: Iterable[Record]) -> None:
        """Take in records of some disks; an older one than is known changes nothing."""
        with self._lock:
            for record in records:
                before = self._records.get(record.name)
                if before is not None and record.seq < before.seq:
                    continue
                if is_gone(record):
                    self._records.pop(record.name, None)
                else:
                    self._records[record.name] = record

    def has(self, name: str, seq: int) -> bool:
        """Tell whether what is known of a disk is as new as an event."""
        with self._lock:
            record = self._records.get(name)
        return record is not None and record.seq >= seq

    def __len__(self) -> int:
        """Return how many disks are known."""
        return len(self._records)

    def find(self, name: str) -> Record | None:
        """Return what is known of a disk; None when it is not in use, or nobody told of it."""
        return self._records.get(name)

    def records(self) -> list[Record]:
        """Return all records, by name."""
        with self._lock:
            return [self._records[name] for name in sorted(self._records)]

    def news(self, log: EventLog) -> list[Record]:
        """Return the records that the log has and this does not; changes nothing.

        Raises:
            LogUnavailable, LogDamaged: the log cannot be read.
        """
        with self._lock:
            have = {name: record.seq for name, record in self._records.items()}
        newest = log.names_in_use()
        if not have:
            return log.in_use()
        changed = [name for name, seq in newest.items() if have.get(name, -1) < seq]
        gone = [name for name in have if name not in newest]
        found = map(log.record, (*changed, *gone))
        return [record for record in found if record is not None]

"""Records while events are replayed: those of living disks in memory, the removed ones on disk.

Most disks of an old log are removed, and nobody asks for them until the end. SQLite keeps them in
a temporary file of its own, which nobody else can see and which is gone with the roster; so the
memory of a replay does not grow with the age of the log.

Reads no log. May be imported by eventlog and what stands above it in `statemachine`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from statemachine import projection
from statemachine.errors import LogDamaged
from statemachine.events import Event
from statemachine.machine import Desired, State
from statemachine.names import HOST
from statemachine.record import Record, from_row, to_text


class Roster:
    """All records at one moment of a replay. Close it, or use it as a context manager.

    Args:
        records: to begin with; they are moved along, and so they are nobody else's.
        removed: says what a removed disk was that is not among them.
    """

    def __init__(
        self,
        records: Iterable[Record] = (),
        *,
        removed: Callable[[str], Record | None] = lambda _: None,
    ) -> None:
        self._look_up = removed
        self.living: dict[str, Record] = {}
        """The records of the disks that are not removed, by name."""
        self._again: dict[str, Record] = {}
        """Of removed disks that were wanted again while they were being removed."""
        # "" is a private database in a temporary file (sqlite.org/inmemorydb.html).
        self._removed = sqlite3.connect("", isolation_level=None)
        self._removed.execute("CREATE TABLE removed (name TEXT PRIMARY KEY, record TEXT NOT NULL)")
        self._removed.execute("BEGIN")
        for record in records:
            self.put(record)

    def close(self) -> None:
        """Forget everything; idempotent."""
        self._removed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def get(self, name: str) -> Record | None:
        """Return a disk's record, None if no event has spoken of it."""
        record = self.living.get(name)
        if record is not None:
            return record
        query = "SELECT record FROM removed WHERE name = ?"
        row = self._removed.execute(query, (name,)).fetchone()
        return from_row(json.loads(row[0])) if row else self._look_up(name)

    def put(self, record: Record) -> None:
        """Take a record in, over the one of the same name."""
        self._again.pop(record.name, None)
        if record.state is State.REMOVED:
            self.living.pop(record.name, None)
            if record.desired is not Desired.REMOVED:
                self._again[record.name] = record
            row = (record.name, to_text(record))
            self._removed.execute("INSERT OR REPLACE INTO removed VALUES (?, ?)", row)
        else:
            if record.name not in self.living:
                self._removed.execute("DELETE FROM removed WHERE name = ?", (record.name,))
            self.living[record.name] = record

    def in_use(self) -> list[Record]:
        """Return the records by name but for the disks that are removed, and wanted so."""
        found = self.living | self._again
        return [found[name] for name in sorted(found)]

    def replay(self, events: Iterable[Event]) -> None:
        """Move the records along with some events.

        Raises:
            LogDamaged: an event does not fit what went before it.
        """
        living, move = self.living, projection.move
        for event in events:
            name = event.disk
            before = living.get(name)
            try:
                # Version 1 begins a generation, and nothing of an earlier one is left in it.
                if before is None and event.version != 1 and name != HOST:
                    before = self.get(name)
                record = move(before, event)
            except ValueError as error:
                raise LogDamaged(str(error), seq=event.seq) from error
            if record is None:
                continue
            if name in living and record.state is not State.REMOVED:
                living[name] = record
            else:
                self.put(record)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield (name, record as the table `disks` has it) of all disks, by name."""
        removed = self._removed.execute("SELECT name, record FROM removed ORDER BY name")
        waiting = next(removed, None)
        # SQLite orders by UTF-8 bytes, as Python orders by code points: the same order.
        for name in sorted(self.living):
            while waiting is not None and waiting[0] < name:
                yield waiting
                waiting = next(removed, None)
            yield name, to_text(self.living[name])
        while waiting is not None:
            yield waiting
            waiting = next(removed, None)

    def count(self) -> int:
        """Return how many disks there are, removed ones too."""
        removed = self._removed.execute("SELECT count(*) FROM removed").fetchone()[0]
        return len(self.living) + int(removed)

    def removed_texts(self) -> Iterator[str]:
        """Yield the records of the removed disks as the table `disks` has them, by name."""
        for row in self._removed.execute("SELECT record FROM removed ORDER BY name"):
            yield row[0]

    def records(self) -> Iterator[Record]:
        """Yield all records, by name."""
        for name, text in self.texts():
            living = self.living.get(name)
            yield living or from_row(json.loads(text))


def replay(events: Iterable[Event]) -> dict[str, Record]:
    """Return what all records are after some events, by name; for logs that fit into memory.

    Raises:
        LogDamaged: an event does not fit what went before it.
    """
    with Roster() as roster:
        roster.replay(events)
        return {record.name: record for record in roster.records()}

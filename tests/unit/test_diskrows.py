"""The table `disks`: moved along by commits, it is what a rebuild makes of the events."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from statemachine import payloads, repair
from statemachine.eventlog import EventLog
from statemachine.events import NewEvent
from statemachine.machine import Desired, State, Trigger
from tests.unit.events_made import IDENTITY, declaration, of_disk

STARTED = payloads.TransitionStarted(
    trigger=Trigger.ATTACH, source=State.ABSENT, target=State.ATTACHED, driver="clone"
)
FAILED = payloads.TransitionFailed(
    trigger=Trigger.ATTACH,
    source=State.ABSENT,
    target=State.ATTACHED,
    consequence="transient",
    kind="busy",
    message="busy",
    attempt=3,
    retry_at=17,
)
COMPLETED = payloads.TransitionCompleted(
    trigger=Trigger.ATTACH, source=State.ABSENT, target=State.ATTACHED, device="/dev/loop7"
)
REMOVED = payloads.TransitionCompleted(
    trigger=Trigger.REMOVE, source=State.ATTACHED, target=State.REMOVED
)


@pytest.fixture
def log(folder: Path) -> Iterator[EventLog]:
    with EventLog(folder / "byre.db") as made:
        yield made


def again(name: str, *, generation: int, disk_id: str) -> NewEvent:
    payload = payloads.DiskDeclared(
        id=disk_id,
        spec=declaration(name, Desired.PAUSED).data["spec"],
        device_name=f"byre-{name}",
        base=IDENTITY,
    )
    return of_disk(name, payload, generation=generation)


def rows(log: EventLog) -> list[tuple[Any, ...]]:
    return log.rows("SELECT * FROM disks ORDER BY name")


def test_every_column_moves_with_the_record(log: EventLog) -> None:
    log.append([declaration("sb-1")])
    for payload in (STARTED, FAILED, STARTED, COMPLETED, REMOVED):
        log.append([of_disk("sb-1", payload)])
        moved = rows(log)
        repair.rebuild(log)
        assert rows(log) == moved


def test_the_first_event_of_a_generation_changes_the_id(log: EventLog) -> None:
    log.append([declaration("sb-1"), declaration("sb-2")])
    log.append([of_disk("sb-1", REMOVED)])
    log.append([again("sb-1", generation=2, disk_id="1" * 32), of_disk("sb-2", STARTED)])
    log.append([of_disk("sb-1", STARTED, generation=2)])
    moved = rows(log)
    assert [row[:3] for row in moved] == [("sb-1", "1" * 32, 2), ("sb-2", "0" * 32, 1)]
    record = log.record_of("1" * 32)
    assert record is not None
    assert record.name == "sb-1"
    repair.rebuild(log)
    assert rows(log) == moved


def test_the_indexes_of_what_never_changes_are_not_written(log: EventLog, folder: Path) -> None:
    """Each page of the WAL costs a commit two writes and a checksum."""
    log.append([declaration("sb-1")])
    log.append([of_disk("sb-1", STARTED)])
    wal = folder / "byre.db-wal"
    before = wal.stat().st_size
    log.append([of_disk("sb-1", FAILED)])
    with sqlite3.connect(folder / "byre.db") as raw:
        page_bytes = raw.execute("PRAGMA page_size").fetchone()[0]
    raw.close()
    written = (wal.stat().st_size - before) // page_bytes
    # The event, its version and its type; the disk, and that it is in use.
    assert 0 < written <= 5

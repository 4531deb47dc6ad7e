"""An older copy of the log under disks that have moved on: the kernel wins, and no data is lost."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from statemachine.batch import Request
from statemachine.events import NewEvent
from statemachine.machine import Desired, State, Trigger
from tests.unit.builders import LINK, Stage
from tests.unit.strays import drop_the_log

DECLARED, ATTACH, SNAPSHOT = 1, 3, 4
"""How many appends the log of a new live disk has seen after each step; the one with the outcome of
the attach has the intent of the snapshot as well."""
PAUSE_WISHED, PAUSED, RESTORE_WISHED, RESTORED = 5, 7, 8, 10


def live_a_life(stage: Stage, *, until: int, copy: Path) -> None:
    """Make a disk live, pause and restore it; copy the log after so many appends to it."""
    commit, count = stage.byre.log.commit, 0

    def counted(events: Sequence[NewEvent]) -> Request:
        nonlocal count
        settled = commit(events)
        count += any(event.disk == "sb-1" for event in events)
        if count == until and not copy.exists():
            with contextlib.closing(sqlite3.connect(stage.byre.root.log)) as log:
                log.execute("VACUUM INTO ?", (str(copy),))
        return settled

    stage.byre.log.commit = counted  # type: ignore[method-assign]
    record = stage.live(link=LINK)
    stage.kernel.write(record.device, 4096, b"kept")
    if until > SNAPSHOT:
        stage.command(Trigger.PAUSE)
        stage.command(Trigger.RESTORE)
    assert copy.exists()


def put_back(stage: Stage, copy: Path) -> None:
    """Start a new process on an older copy of the log."""
    drop_the_log(stage)
    shutil.copy(copy, stage.byre.root.log)
    stage.restart()


@pytest.mark.parametrize("until", range(DECLARED, RESTORED + 1))
def test_a_live_disk_stays_as_it_is_where_the_older_log_wants_it_live(
    folder: Path, until: int
) -> None:
    stage = Stage(folder)
    live_a_life(stage, until=until, copy=folder / "older.db")
    calls = len(stage.kernel.trace)
    put_back(stage, folder / "older.db")
    stage.settle()
    # What is refused as it is there already has done nothing.
    done = {call.name for call in stage.kernel.trace[calls:] if call.error is None}
    record = stage.record()
    if record.desired is Desired.LIVE:
        assert set() == done & {"dm_create", "dm_load", "dm_remove"}
    else:
        assert until in range(PAUSE_WISHED, RESTORE_WISHED)
        assert record.state is State.PAUSED
        record = stage.command(Trigger.RESTORE)
    assert "remove_file" not in done
    assert stage.kernel.read(record.device, 4096, 4) == b"kept"
    assert stage.kernel.read_link(LINK).target == record.device
    stage.check()
    stage.check_quiet()
    stage.command(Trigger.REMOVE)
    stage.check()
    assert stage.kernel.loops() == ()
    stage.close()


@pytest.mark.parametrize("until", range(DECLARED, RESTORED + 1))
def test_a_paused_disk_keeps_its_data_whatever_the_older_log_says(folder: Path, until: int) -> None:
    stage = Stage(folder)
    live_a_life(stage, until=until, copy=folder / "older.db")
    stage.command(Trigger.PAUSE)
    put_back(stage, folder / "older.db")
    stage.settle()
    if stage.record().desired is not Desired.LIVE:
        stage.command(Trigger.RESTORE)
    assert stage.kernel.read(stage.record().device, 4096, 4) == b"kept"
    stage.check()
    stage.close()


@pytest.mark.parametrize("until", [DECLARED, ATTACH, SNAPSHOT, PAUSED, RESTORE_WISHED])
def test_a_later_generation_is_an_orphan_to_an_older_log_and_is_left_alone(
    folder: Path, until: int
) -> None:
    stage = Stage(folder)
    live_a_life(stage, until=until, copy=folder / "older.db")
    stage.command(Trigger.REMOVE)
    later = stage.live(link=LINK)
    stage.kernel.write(later.device, 4096, b"late")
    calls = len(stage.kernel.trace)
    put_back(stage, folder / "older.db")
    stage.settle()
    done = {call.name for call in stage.kernel.trace[calls:]}
    assert set() == done & {"dm_remove", "remove_file"}
    assert stage.kernel.read("/dev/dm-0", 4096, 4) == b"late"
    stage.close()


def test_the_log_tells_how_it_caught_up(folder: Path) -> None:
    stage = Stage(folder)
    live_a_life(stage, until=DECLARED, copy=folder / "older.db")
    put_back(stage, folder / "older.db")
    stage.settle()
    found = ["disk.declared", "drift.detected find", "drift.detected find"]
    assert found == stage.types()[:3]
    first = stage.events()[1]
    assert (first.data["source"], first.data["target"]) == ("absent", "paused")
    assert first.data["cow_path"] == stage.record().cow_path
    stage.check_log()
    stage.close()

"""A backup of a log that is in use: one whole file, proven, or nothing."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from statemachine import backup, history, proof
from statemachine.backup import back_up
from statemachine.errors import Damage, LogDamaged, LogUnavailable, RefusedError
from statemachine.eventlog import EventLog
from tests.unit.events_made import declaration, host_event
from tests.unit.logforger import rows_of, write_rows


@pytest.fixture
def log(folder: Path) -> Iterator[EventLog]:
    with EventLog(folder / "root" / "byre.db", boot_id="boot-1") as made:
        made.append([declaration("sb-1")])
        for number in range(9):
            made.append([host_event(f"{number}")])
        yield made


@pytest.fixture
def target(folder: Path) -> Path:
    return folder / "copy.db"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_a_backup_is_the_log_in_one_file_of_its_own(log: EventLog, target: Path) -> None:
    made = back_up(log.path, target)
    assert names(target.parent) == ["copy.db"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert (made.events, made.size_bytes) == (10, target.stat().st_size)
    with EventLog(target, read_only=True) as copy:
        found = proof.verify(copy)
        assert (found.seq, found.hash) == (made.seq, made.hash)
        assert list(copy.events()) == list(log.events())
        assert list(history.compare(copy)) == []
        assert (copy.root_id, copy.backup_head()) == (log.root_id, f"{made.seq}:{made.hash}")
    assert names(target.parent) == ["copy.db"]


def test_a_log_that_is_written_to_meanwhile_is_copied_as_it_was_at_one_moment(
    log: EventLog, target: Path
) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            log.append([host_event("x" * 500)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            before = log.last_seq()
            made = back_up(log.path, target.with_name(f"{number}.db"))
            assert before <= made.seq <= log.last_seq()
    finally:
        stop.set()
        writer.join()
    assert proof.verify(log).events == log.last_seq()


def test_what_is_there_is_never_overwritten(log: EventLog, target: Path) -> None:
    target.write_text("mine")
    with pytest.raises(RefusedError, match="exists; a backup is written to a new file"):
        back_up(log.path, target)
    target.unlink()
    target.symlink_to(target.with_name("elsewhere"))
    with pytest.raises(RefusedError):
        back_up(log.path, target)
    assert names(target.parent) == []


def test_what_takes_the_name_meanwhile_is_not_overwritten(
    log: EventLog, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(path: Path) -> None:
        target.write_text(f"somebody else, while {path.name} was synced")

    monkeypatch.setattr(backup, "sync", sync)
    with pytest.raises(RefusedError):
        back_up(log.path, target)
    assert names(target.parent) == ["copy.db"]
    assert target.read_text().startswith("somebody else")


def test_a_damaged_log_is_not_backed_up(log: EventLog, target: Path) -> None:
    rows = rows_of(log.path)
    log.close()
    write_rows(log.path, [*rows[:4], *rows[5:]])
    with pytest.raises(LogDamaged, match="event 5 is missing"):
        back_up(log.path, target)
    assert names(target.parent) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_nothing_is_left_of_a_backup_that_cannot_be_written(
    log: EventLog, target: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def failing(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(backup, "sync", failing)
    with pytest.raises(LogUnavailable, match=os.strerror(number)):
        back_up(log.path, target)
    assert names(target.parent) == []


def test_a_folder_that_is_missing_and_a_log_that_is_missing_are_named(
    log: EventLog, target: Path
) -> None:
    with pytest.raises(LogUnavailable, match="No such file or directory"):
        back_up(log.path, target.parent / "gone" / "copy.db")
    with pytest.raises(LogUnavailable, match=r"gone\.db does not exist"):
        back_up(target.with_name("gone.db"), target)
    assert names(target.parent) == []


def test_a_backup_that_was_cut_knows_its_own_end(log: EventLog, target: Path) -> None:
    made = back_up(log.path, target)
    with closing(sqlite3.connect(target)) as raw, raw:
        raw.execute("DROP TRIGGER events_no_delete")
        raw.execute("DELETE FROM events WHERE seq > 7")
    with EventLog(target, read_only=True) as copy, pytest.raises(LogDamaged) as caught:
        proof.verify(copy)
    assert (caught.value.seq, caught.value.what) == (8, Damage.TRUNCATED)
    assert f"the head that its backup carries is of event {made.seq}" in caught.value.message

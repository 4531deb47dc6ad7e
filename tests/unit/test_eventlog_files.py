"""The log's file: missing, foreign, newer, cut off, edited by hand, full, read-only, locked."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest

from statemachine import database, history, schema
from statemachine.errors import ByreError, LogDamaged, LogUnavailable, RefusedError
from statemachine.eventlog import EventLog
from statemachine.events import chain_hash
from tests.unit.events_made import declaration, host_event

Edit = Callable[[sqlite3.Connection], object]


@pytest.fixture
def path(folder: Path) -> Path:
    """A log with five events, closed."""
    made = folder / "byre.db"
    with EventLog(made, boot_id="boot-1") as log:
        log.append([declaration(f"sb-{number}") for number in range(3)])
        log.append([host_event(), host_event()])
    return made


def edited(path: Path, *statements: str) -> None:
    """Change the file as somebody would who wants to: without the triggers."""
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        for (name,) in raw.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            raw.execute(statement)


def damage_of(path: Path) -> LogDamaged:
    with EventLog(path, read_only=True) as log, pytest.raises(LogDamaged) as caught:
        history.verify(log)
    return caught.value


# --- what somebody did to the rows ----------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "disk = 'sb-9'",
        "version = 9",
        "type = 'disk.thawed'",
        "at = at + 1",
        "actor = 'nobody'",
        "reason = 'x'",
        "boot_id = ''",
        "data = json_set(data, '$.why', 'x')",
        "data = ' ' || data",
        "prev_hash = hash",
        "hash = prev_hash",
    ],
)
def test_an_edited_row_is_named(path: Path, change: str) -> None:
    edited(path, f"UPDATE events SET {change} WHERE seq = 3")  # noqa: S608 - no stranger's text
    damage = damage_of(path)
    assert (damage.seq, damage.exit_code) == (3, 6)
    assert "events 1 to 2 are intact" in damage.hint


def test_a_deleted_row_is_named(path: Path) -> None:
    edited(path, "DELETE FROM events WHERE seq = 2")
    assert (damage_of(path).seq, "event 2 is missing" in str(damage_of(path))) == (2, True)


def test_a_deleted_first_row_is_named(path: Path) -> None:
    edited(path, "DELETE FROM events WHERE seq = 1")
    assert damage_of(path).seq == 1


def test_several_deleted_rows_are_named(path: Path) -> None:
    edited(path, "DELETE FROM events WHERE seq IN (2, 3, 4)")
    assert "events 2 to 4 are missing" in str(damage_of(path))


def test_two_rows_in_each_others_place_are_found(path: Path) -> None:
    edited(
        path,
        "UPDATE events SET seq = 99 WHERE seq = 2",
        "UPDATE events SET seq = 2 WHERE seq = 3",
        "UPDATE events SET seq = 3 WHERE seq = 99",
    )
    assert damage_of(path).seq == 2


def test_an_edited_row_with_a_right_hash_is_found_by_the_next_one(path: Path) -> None:
    with EventLog(path, read_only=True) as log:
        second, third = list(log.events())[1:3]
    assert third.prev_hash == second.hash
    forged = attrs.evolve(second, actor="forger")
    forged = attrs.evolve(forged, hash=chain_hash(forged.columns()[:-1]))
    edited(path, f"UPDATE events SET actor = 'forger', hash = '{forged.hash}' WHERE seq = 2")  # noqa: S608 - no stranger's text
    damage = damage_of(path)
    assert (damage.seq, "its hash made anew" in damage.message) == (2, True)


def test_nothing_is_appended_to_a_damaged_tail(path: Path) -> None:
    with EventLog(path) as log:
        edited(path, "UPDATE events SET actor = 'nobody' WHERE seq = 5")
        with pytest.raises(LogDamaged) as caught:
            log.append([host_event()])
        assert (caught.value.seq, log.last_seq()) == (5, 5)
    with pytest.raises(LogDamaged):
        EventLog(path)


def test_a_missing_table_is_damage(path: Path) -> None:
    edited(path, "DROP TABLE disks")
    with pytest.raises(LogDamaged, match="no such table"), EventLog(path, read_only=True) as log:
        log.records()


# --- what the file is -----------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_left_as_it_is(folder: Path) -> None:
    path = folder / "byre.db"
    path.write_bytes(b"not a database at all, just text " * 100)
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(LogDamaged):
            EventLog(path, read_only=read_only)
    assert before == path.read_bytes()


@pytest.mark.parametrize("user_version", [0, 1, 7])
def test_a_database_of_another_application_is_left_as_it_is(
    folder: Path, user_version: int
) -> None:
    path = folder / "byre.db"
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("CREATE TABLE notes (text)")
        raw.execute("PRAGMA application_id = 4711")
        raw.execute(f"PRAGMA user_version = {user_version}")
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(LogDamaged, match="not a log of byre"):
            EventLog(path, read_only=read_only)
    assert before == path.read_bytes()


def test_a_newer_schema_is_refused(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    for read_only in (False, True):
        with pytest.raises(RefusedError, match="this byre knows up to") as caught:
            EventLog(path, read_only=read_only)
        assert caught.value.exit_code == 4


def test_a_file_that_was_cut_off_is_damage(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)
    with pytest.raises(LogDamaged), EventLog(path, read_only=True) as log:
        history.verify(log)


def test_an_empty_file_is_a_log_without_events(folder: Path) -> None:
    path = folder / "byre.db"
    path.touch()
    with EventLog(path, read_only=True) as log:
        assert (log.last_seq(), log.records()) == (0, [])
    with EventLog(path) as log:
        assert log.records() == []


def test_a_process_that_died_before_the_first_migration_left_a_log_without_events(
    folder: Path,
) -> None:
    path = folder / "byre.db"
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA journal_mode = WAL")
    with EventLog(path, read_only=True) as log:
        assert log.last_seq() == 0


def test_a_root_that_does_not_exist_is_empty_and_stays_so(folder: Path) -> None:
    with EventLog(folder / "never" / "byre.db", read_only=True) as log:
        assert log.records() == []
    assert not (folder / "never").exists()


def test_a_new_log_is_for_its_owner_only(folder: Path) -> None:
    with EventLog(folder / "root" / "byre.db"):
        assert tuple(
            (folder / "root" / name).stat().st_mode & 0o777 for name in (".", "byre.db")
        ) == (0o700, 0o600)


def test_a_symlink_in_the_place_of_a_new_log_is_not_followed(folder: Path) -> None:
    (folder / "byre.db").symlink_to(folder / "elsewhere")
    with pytest.raises(ByreError):
        EventLog(folder / "byre.db")
    assert not (folder / "elsewhere").exists()


def test_a_root_that_is_a_file_is_unavailable(folder: Path) -> None:
    (folder / "root").touch()
    with pytest.raises(LogUnavailable):
        EventLog(folder / "root" / "byre.db")


# --- what the world does --------------------------------------------------------------------------


def test_a_lock_that_is_not_given_back_in_time_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    with EventLog(path) as log, contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogUnavailable) as caught:
            log.append([host_event()])
        assert "another process holds the write lock" in caught.value.hint
        raw.rollback()
        log.append([host_event()])
        assert history.verify(log).events == 6


def test_readers_are_not_held_up_by_a_writer(path: Path) -> None:
    with EventLog(path) as log, contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        assert len(log.records()) == 3
        raw.rollback()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "byre-test", place],
        check=False,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.root
def test_a_full_file_system_refuses_and_loses_nothing(small_disk: Path) -> None:
    path = small_disk / "byre.db"
    with EventLog(path) as log:
        log.append([declaration("sb-1")])
        room = os.statvfs(small_disk).f_bavail * 4096
        (small_disk / "filler").write_bytes(b"x" * room)
        refused = None
        for _ in range(200):
            try:
                log.append([host_event("y" * 1000)])
            except LogUnavailable as error:
                refused = error
                break
        assert refused is not None
        assert refused.exit_code == 1
        (small_disk / "filler").unlink()
        before = log.last_seq()
        log.append([host_event()])
        assert before + 1 == history.verify(log).events


@pytest.mark.root
def test_a_new_root_on_a_full_file_system_is_unavailable(small_disk: Path) -> None:
    with contextlib.suppress(OSError):
        (small_disk / "filler").write_bytes(b"x" * 400 * 1024)
    with pytest.raises(LogUnavailable):
        EventLog(small_disk / "root" / "byre.db")


@pytest.mark.root
def test_a_read_only_file_system_can_be_asked_where_possible_and_never_written(
    path: Path, small_disk: Path
) -> None:
    for each in path.parent.iterdir():
        shutil.copy(each, small_disk)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for there in (small_disk / "byre.db", small_disk / "new" / "byre.db"):
        with pytest.raises(LogUnavailable), EventLog(there) as log:
            log.append([host_event()])
    with EventLog(small_disk / "byre.db", read_only=True) as log:
        assert log.last_seq() > 0
        assert [event.seq for event in log.events()] == list(range(1, log.last_seq() + 1))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_without_privilege_the_log_is_unavailable(path: Path) -> None:
    path.chmod(0o400)
    with pytest.raises(LogUnavailable):
        EventLog(path).append([host_event()])
    path.parent.chmod(0o000)
    with pytest.raises(LogUnavailable):
        EventLog(path, read_only=True)
    path.parent.chmod(0o700)


def test_a_commit_on_a_file_system_that_was_given_up_meanwhile_is_not_acknowledged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs

    def given_up(place: str) -> SimpleNamespace:
        return SimpleNamespace(f_flag=real(place).f_flag | os.ST_RDONLY)

    with EventLog(path) as log:
        log.append([host_event()])
        with monkeypatch.context() as patched:
            patched.setattr("statemachine.writer.os.statvfs", given_up)
            with pytest.raises(LogUnavailable, match="became read-only"):
                log.append([host_event()])
        assert log.append([host_event()])[0].seq > 1  # it is trusted again, and looked at first
        assert log.head.seq == log.last_seq()

"""Waiting for the log in a second process, with a real SQLite log and the real inotify."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

from reconciler.clock import WAIT_S_MAX, FakeClock, SystemClock
from reconciler.watch.follow import POLL_S, RECHECK_S, LogFollower, wait_for_change
from reconciler.watch.inotify import Inotify
from statemachine.eventlog import EventLog
from statemachine.names import LOG_NAME
from tests.unit.events_made import host_event

LONG_S = 10.0
BOTH_WAYS = pytest.mark.parametrize("use_inotify", [True, False], ids=["inotify", "polling"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "byre.db"


@pytest.fixture
def log(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE events (seq INTEGER)")
    return database


def _append(log: sqlite3.Connection) -> None:
    log.execute("INSERT INTO events VALUES (1)")


def _settle(follower: LogFollower) -> None:
    """Let the follower see what has happened so far."""
    deadline_s = time.monotonic() + LONG_S
    while follower.wait(0.5):
        assert time.monotonic() < deadline_s


@BOTH_WAYS
def test_a_change_while_waiting_ends_the_wait(
    path: Path, log: sqlite3.Connection, *, use_inotify: bool
) -> None:
    with LogFollower(path, use_inotify=use_inotify) as follower:
        _settle(follower)
        timer = threading.Timer(0.1, _append, [log])
        timer.start()
        begin_s = time.monotonic()
        assert follower.wait(LONG_S)
        assert time.monotonic() - begin_s < LONG_S / 2
        timer.join(LONG_S)
    log.close()


@BOTH_WAYS
def test_a_change_between_two_waits_is_not_lost(
    path: Path, log: sqlite3.Connection, *, use_inotify: bool
) -> None:
    with LogFollower(path, use_inotify=use_inotify) as follower:
        _settle(follower)
        for _ in range(20):
            _append(log)
            assert follower.wait(0)
            _settle_quickly(follower)
    log.close()


def _settle_quickly(follower: LogFollower) -> None:
    while follower.wait(0):
        pass


@BOTH_WAYS
def test_a_change_after_the_follower_was_made_is_not_lost(
    path: Path, log: sqlite3.Connection, *, use_inotify: bool
) -> None:
    with LogFollower(path, use_inotify=use_inotify) as follower:
        _append(log)
        assert follower.wait(LONG_S)
    log.close()


@BOTH_WAYS
def test_without_a_change_the_wait_ends_with_the_timeout(
    path: Path, log: sqlite3.Connection, *, use_inotify: bool
) -> None:
    with LogFollower(path, use_inotify=use_inotify) as follower:
        _settle(follower)
        begin_s = time.monotonic()
        assert not follower.wait(0.3)
        assert 0.3 <= time.monotonic() - begin_s < LONG_S
    log.close()


@BOTH_WAYS
def test_a_reader_does_not_wake_itself(
    path: Path, log: sqlite3.Connection, *, use_inotify: bool
) -> None:
    """The only connection to a log makes and deletes the write-ahead log each time it reads."""
    _append(log)
    log.close()
    with LogFollower(path, use_inotify=use_inotify) as follower:
        _settle(follower)
        for _ in range(3):
            reader = sqlite3.connect(path)
            assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
            reader.close()
            assert not follower.wait(0.1)


@BOTH_WAYS
def test_a_log_that_is_made_later_is_seen(tmp_path: Path, *, use_inotify: bool) -> None:
    path = tmp_path / "root" / "byre.db"
    with LogFollower(path, use_inotify=use_inotify) as follower:
        assert not follower.by_inotify
        path.parent.mkdir()
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("CREATE TABLE events (seq INTEGER)")
        assert follower.wait(LONG_S)
        assert follower.by_inotify == use_inotify
        _settle(follower)
        _append(database)
        assert follower.wait(LONG_S)
        database.close()


def test_a_root_folder_that_is_replaced_is_followed(path: Path, log: sqlite3.Connection) -> None:
    root = path.parent / "root"
    root.mkdir()
    with LogFollower(root / "byre.db") as follower:
        shutil.rmtree(root)
        assert follower.wait(LONG_S)
        root.mkdir()
        shutil.copy(path, root / "byre.db")
        assert follower.wait(LONG_S)
        assert follower.by_inotify
    log.close()


def test_neighbours_of_the_log_are_no_change(path: Path, log: sqlite3.Connection) -> None:
    with LogFollower(path) as follower:
        _settle(follower)
        (path.parent / "sb-1.cow").write_text("x")
        assert not follower.wait(0.2)
    log.close()


def test_writes_of_the_same_size_and_time_are_not_lost_by_polling(path: Path) -> None:
    """The kernel's file times stand still for some milliseconds."""
    path.write_text("1")
    status = path.stat()
    clock = FakeClock(start_ns=status.st_mtime_ns + 1_000_000)
    follower = LogFollower(path, clock, use_inotify=False)
    clock.advance_s(1)
    assert follower.wait(0)
    assert not follower.wait(0)


def test_polling_looks_often_and_not_all_the_time(path: Path) -> None:
    clock = FakeClock(autojump=True)
    assert not LogFollower(path, clock, use_inotify=False).wait(POLL_S * 10)
    assert clock.monotonic_s() == pytest.approx(POLL_S * 10)


def test_where_inotify_cannot_be_had_the_follower_polls(
    path: Path, log: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Inotify) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Inotify, "__init__", refuse)
    with LogFollower(path) as follower:
        assert not follower.by_inotify
        _append(log)
        assert follower.wait(LONG_S)
    log.close()


def test_waiting_once_needs_one_call(path: Path, log: sqlite3.Connection) -> None:
    time.sleep(0.2)
    assert not wait_for_change(path, 0.05, SystemClock())
    timer = threading.Timer(0.1, _append, [log])
    timer.start()
    assert wait_for_change(path, LONG_S)
    timer.join(LONG_S)
    log.close()


@pytest.mark.parametrize("bad_s", [-1.0, WAIT_S_MAX + 1, float("nan")])
def test_a_timeout_out_of_bounds_is_refused(path: Path, bad_s: float) -> None:
    with LogFollower(path) as follower, pytest.raises(ValueError, match="outside of"):
        follower.wait(bad_s)


def test_closing_twice_is_harmless(path: Path) -> None:
    follower = LogFollower(path)
    follower.close()
    follower.close()


def test_to_follow_a_log_starts_no_program(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*words: object, **_: object) -> None:
        raise AssertionError(f"{words} was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    with LogFollower(path, use_inotify=True) as follower:
        assert not follower.wait(0.0)


def test_what_was_looked_at_wakes_nobody_again(tmp_path: Path) -> None:
    with EventLog(tmp_path / LOG_NAME) as log, LogFollower(log.path) as follower:
        log.append([host_event()])
        assert follower.look()
        assert not follower.wait(0.2)
        log.append([host_event()])
        assert follower.wait(LONG_S)


def test_a_write_without_a_notice_is_found_by_looking_again(tmp_path: Path) -> None:
    clock = FakeClock()
    with EventLog(tmp_path / LOG_NAME) as log:
        log.append([host_event()])
        with (
            LogFollower(log.path, clock) as follower,
            contextlib.closing(sqlite3.connect(log.path)) as unnoted,
        ):
            unnoted.execute("CREATE TABLE notes (text)")
            assert not follower.look()
            clock.advance_s(RECHECK_S)
            assert follower.look()
            assert not follower.look()

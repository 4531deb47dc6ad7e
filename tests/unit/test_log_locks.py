"""A lock that a hung process holds: the wait has an end, and the error says who it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.api import Byre
from reconciler.kernel.sim import SimKernel
from reconciler.lock import RootLock
from statemachine import database, history, lockholders
from statemachine.errors import LogUnavailable, RootBusy
from statemachine.eventlog import EventLog
from tests.unit.builders import BASE, MIB
from tests.unit.events_made import host_event

HOLD_WRITE_LOCK = """\
import sqlite3, sys
raw = sqlite3.connect(sys.argv[1], isolation_level=None)
raw.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""
HOLD_ROOT_LOCK = """\
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(script: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Have a process hold a lock; it ends with the test."""
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            yield child
        finally:
            child.kill()


def stop(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)


@pytest.fixture
def path(folder: Path) -> Path:
    made = folder / "byre.db"
    with EventLog(made) as log:
        log.append([host_event()])
    return made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 100)


@pytest.mark.usefixtures("impatient")
def test_a_stopped_writer_is_named_and_does_not_hold_up_readers(path: Path) -> None:
    with EventLog(path) as log, held(HOLD_WRITE_LOCK, path) as child:
        stop(child)
        with pytest.raises(LogUnavailable, match=r"locked, 0\.1 s long") as caught:
            log.append([host_event()])
        assert f"process holds the write lock: pid {child.pid} (" in caught.value.hint
        assert "which is stopped; end it" in caught.value.hint
        assert caught.value.exit_code == 1
        assert len(list(log.events())) == 1
        child.kill()
        child.wait()
        log.append([host_event()])
        assert history.verify(log).events == 2


@pytest.mark.usefixtures("impatient")
def test_a_log_that_is_being_written_can_be_opened_by_others(path: Path) -> None:
    with held(HOLD_WRITE_LOCK, path) as child:
        stop(child)
        for read_only in (True, False):
            with EventLog(path, read_only=read_only) as log:
                assert history.verify(log).events == 1


def test_a_stopped_reconciler_is_named_by_its_command(tmp_path: Path) -> None:
    path = tmp_path / "reconciler.lock"
    with held(HOLD_ROOT_LOCK, path) as child:
        stop(child)
        with pytest.raises(RootBusy) as caught:
            RootLock(path).acquire()
        assert f"pid {child.pid} ({sys.executable} -c" in caught.value.message
        assert caught.value.message.endswith("which is stopped")
        assert not RootLock(path).try_acquire()
    assert RootLock(path).holder() == ""


def test_who_waits_in_vain_is_told_that_the_reconciler_is_stopped(folder: Path) -> None:
    kernel = SimKernel()
    kernel.make_file(BASE, MIB)
    with Byre(folder / "root", kernel=kernel) as byre:
        byre.ensure("sb-1", base=BASE)
        with held(HOLD_ROOT_LOCK, byre.root.lock) as child:
            stop(child)
            [waited] = byre.wait(["sb-1"], timeout_s=0.1)
            assert (waited.exit_code, f"pid {child.pid} (" in waited.hint) == (5, True)
            assert "which is stopped" in waited.hint


# --- reading /proc/locks --------------------------------------------------------------------------


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc/locks of the test's own; `{inode}` is that of its file `log`."""
    (tmp_path / "log").touch()
    monkeypatch.setattr(lockholders, "LOCKS", tmp_path / "locks")
    return tmp_path / "locks"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("1: POSIX  ADVISORY  WRITE 999999999 {device}:{inode} 120 120", True),
        ("1: POSIX  ADVISORY  READ 999999999 {device}:{inode} 100 130", True),
        ("1: FLOCK  ADVISORY  WRITE 999999999 {device}:{inode} 0 EOF", True),
        ("1: POSIX  ADVISORY  WRITE 999999999 {device}:{inode} 121 121", False),
        ("1: POSIX  ADVISORY  WRITE 999999999 {device}:{other} 120 120", False),
        ("1: POSIX  ADVISORY  WRITE 999999999 7f:7f:{inode} 120 120", False),
        ("1: -> POSIX  ADVISORY  WRITE 999999999 {device}:{inode} 120 120", False),
        ("1: LEASE  ACTIVE    READ 999999999 {device}:{inode} 0 EOF", False),
        ("what a later kernel may say", False),
        ("", False),
    ],
)
def test_a_line_of_proc_locks_is_read(locks: Path, line: str, *, found: bool) -> None:
    log = locks.with_name("log")
    status = log.stat()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    locks.write_text(
        line.format(device=device, inode=status.st_ino, other=status.st_ino + 1) + "\n"
    )
    assert lockholders.holders(log, byte=120) == (("pid 999999999",) if found else ())


def test_who_cannot_be_seen_is_not_named(locks: Path) -> None:
    assert lockholders.holders(locks.with_name("log")) == ()
    assert lockholders.holders(locks.with_name("missing")) == ()


def test_a_process_is_told_by_its_command() -> None:
    assert lockholders.process(os.getpid()).startswith(f"pid {os.getpid()} (")

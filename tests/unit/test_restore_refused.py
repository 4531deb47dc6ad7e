"""A backup that must not be put in place, a log that is ill, and what a crash on the way leaves."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from reconciler.lock import RootLock
from reconciler.requester import this_process
from reconciler.restore import Restored, restore
from statemachine import backup, history, putback
from statemachine.backup import back_up
from statemachine.errors import IdentityMismatch, LogDamaged, LogUnavailable, RootBusy
from statemachine.eventlog import EventLog
from statemachine.head import Head
from statemachine.machine import Trigger
from tests.style import REPOSITORY
from tests.unit.builders import Stage
from tests.unit.events_made import host_event
from tests.unit.logforger import rows_of, write_rows


@pytest.fixture
def stage(folder: Path) -> Stage:
    return Stage(folder)


@pytest.fixture
def copy(stage: Stage) -> Path:
    stage.live()
    made = stage.root.parent / "backup.db"
    back_up(stage.byre.root.log, made)
    stage.command(Trigger.PAUSE)
    return made


def files(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    passing = ("-shm", "-wal", ".lock")
    return {name: data for name, data in found.items() if not name.endswith(passing)}


def again(stage: Stage, source: Path) -> Restored:
    return restore(
        stage.byre.root, source, boot_id="b", now_ns=stage.clock.now_ns, by=this_process()
    )


def test_a_root_with_a_reconciler_is_refused(stage: Stage, copy: Path) -> None:
    stage.close()
    before = files(stage.root)
    with RootLock(stage.byre.root.lock), pytest.raises(RootBusy):
        again(stage, copy)
    assert files(stage.root) == before


def test_a_log_that_somebody_has_open_is_refused(
    stage: Stage, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statemachine.database.BUSY_TIMEOUT_MS", 10)
    seq = stage.byre.log.last_seq()
    with pytest.raises(LogUnavailable, match="locked"):
        again(stage, copy)
    assert stage.byre.log.last_seq() == seq
    stage.byre.log.append([host_event("still the log")])
    stage.close()
    with EventLog(stage.byre.root.log, read_only=True) as log:
        assert log.last_seq() == seq + 1


def test_a_damaged_backup_changes_nothing(stage: Stage, copy: Path) -> None:
    stage.close()
    rows = rows_of(copy)
    write_rows(copy, [*rows[:2], *rows[3:]])
    before = files(stage.root)
    with pytest.raises(LogDamaged):
        again(stage, copy)
    assert files(stage.root) == before


def test_a_backup_of_another_root_is_refused(stage: Stage, copy: Path, folder: Path) -> None:
    stage.close()
    with EventLog(folder / "other" / "byre.db") as other:
        other.append([host_event()])
        back_up(other.path, folder / "other.db")
    before = files(stage.root)
    with pytest.raises(IdentityMismatch, match="is a log of root"):
        again(stage, folder / "other.db")
    assert files(stage.root) == before
    assert copy.exists()


@pytest.mark.parametrize("damage", ["cut", "text", "missing", "without head"])
def test_a_log_that_is_damaged_or_gone_is_replaced_and_kept(
    stage: Stage, copy: Path, damage: str
) -> None:
    stage.close()
    log = stage.byre.root.log
    lost = Head.of(log).read()
    if damage == "cut":
        os.truncate(log, 5000)
    elif damage == "text":
        log.write_text("not a database\n" * 1000)
    elif damage == "missing":
        log.unlink()
    else:
        Head.of(log).path.unlink()
    done = again(stage, copy)
    assert lost is not None
    assert (done.lost_seq, done.lost_hash) == (lost.seq, lost.hash)
    assert bool(done.kept) == (damage != "missing")
    stage.restart()
    history.prove(stage.byre.log)
    stage.close()


DIE: Final = """
import os, sys
from pathlib import Path
from reconciler.root import Root
from reconciler.requester import this_process
from reconciler.restore import restore
from statemachine import putback
root, source, left = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def sync(path):
    global left
    left -= 1
    if not left:
        os._exit(9)
putback.sync = sync
restore(Root(root), source, boot_id="b", now_ns=lambda: 1, by=this_process())
"""


def files_after(error: BaseException, stage: Stage, copy: Path, at: int) -> None:
    """Restore, and fail at one of the steps as a full disk would; nothing must have changed."""
    count = 0

    def failing(path: Path) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise error
        backup.sync(path)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(putback, "sync", failing)
        with pytest.raises((LogUnavailable, KeyboardInterrupt)):
            again(stage, copy)


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no room"), KeyboardInterrupt()])
def test_what_fails_before_the_new_log_is_in_place_changes_nothing(
    stage: Stage, copy: Path, at: int, error: BaseException
) -> None:
    stage.close()
    before = rows_of(stage.byre.root.log)
    files_after(error, stage, copy, at)
    assert [path.name for path in stage.root.glob("log-before-*")] == []
    with EventLog(stage.byre.root.log, read_only=True) as log:
        history.prove(log)
    assert rows_of(stage.byre.root.log) == before


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_crash_leaves_the_old_log_or_none_that_is_opened_before_it_is_done_again(
    stage: Stage, copy: Path, at: int
) -> None:
    stage.close()
    log = stage.byre.root.log
    lost = Head.of(log).read()
    command = [sys.executable, "-c", DIE, str(stage.root), str(copy), str(at)]
    ended = subprocess.run(command, cwd=REPOSITORY, check=False, timeout=60)
    assert ended.returncode == 9
    if at == 1:
        with EventLog(log, read_only=True) as opened:
            history.prove(opened)
    for read_only in (True, False) if at > 1 else ():
        with pytest.raises(LogDamaged, match="was acknowledged"):
            EventLog(log, read_only=read_only)
    done = again(stage, copy)
    assert lost is not None
    assert (done.lost_seq, done.lost_hash) == (lost.seq, lost.hash)
    with EventLog(log) as opened:
        history.prove(opened)

"""A log that is cut off, torn, mixed up or replaced: told apart, left as it is, and salvaged."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.requester import this_process
from reconciler.restore import restore
from reconciler.root import Root
from statemachine import history, proof, repair
from statemachine.errors import LogDamaged, RefusedError
from statemachine.eventlog import EventLog
from statemachine.events import Event
from statemachine.logreader import LogReader
from statemachine.salvage import salvage
from tests.unit.events_made import declaration, host_event

PAGE = 4096
DISKS, HOST_EVENTS = 40, 600
EVENTS = DISKS + HOST_EVENTS


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed log of many pages in a folder of its own."""
    path = tmp_path_factory.mktemp("healthy") / "byre.db"
    with EventLog(path, boot_id="boot-1") as log:
        log.append([declaration(f"sb-{number}") for number in range(DISKS)])
        log.append([host_event(f"{number} " + "x" * 200) for number in range(HOST_EVENTS)])
    return path


@pytest.fixture
def path(healthy: Path, folder: Path) -> Path:
    """A copy of that log, with its head."""
    for name in ("byre.db", "head"):
        shutil.copy(healthy.with_name(name), folder)
    return folder / "byre.db"


def events_of(path: Path) -> list[Event]:
    with EventLog(path, read_only=True) as log:
        return list(log.events())


def files(folder: Path) -> dict[str, bytes]:
    """Return what the log's files say, without the index that any reader makes."""
    found = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
    return {name: data for name, data in found.items() if data and not name.endswith("-shm")}


def damage_at_start(path: Path) -> LogDamaged:
    """Open for writing, as `byre run` does, and expect to be refused with nothing changed."""
    before = files(path.parent)
    with pytest.raises(LogDamaged) as caught, EventLog(path) as log:
        history.prove(log)
    assert (caught.value.exit_code, before) == (6, files(path.parent))
    return caught.value


def what_is_left(path: Path) -> tuple[list[Event], str]:
    """Salvage into a new log; the damaged one must stay as it is."""
    before = files(path.parent)
    target = path.parent / "salvaged" / "byre.db"
    with LogReader(path, lenient=True) as log:
        kept = salvage(log, target)
    with EventLog(target) as log:
        history.prove(log)
        events = list(log.events())
        assert (kept.seq, kept.hash) == (events[-1].seq, events[-1].hash)
        assert kept.disks == len(log.records())
    shutil.rmtree(target.parent)
    assert before == files(path.parent)
    return events, kept.lost


# --- cut off, overwritten -------------------------------------------------------------------------


@pytest.mark.parametrize("left", [1, 99, 100, 1000, 4095])
def test_a_file_without_a_whole_first_page_has_nothing_left(path: Path, left: int) -> None:
    os.truncate(path, left)
    damage_at_start(path)
    with pytest.raises(LogDamaged), LogReader(path, lenient=True) as log:
        history.verify(log)


@pytest.mark.parametrize("share", [0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.99])
@pytest.mark.parametrize("odd", [0, 1, 2049])
def test_a_file_that_was_cut_off_keeps_its_first_events(
    path: Path, healthy: Path, share: float, odd: int
) -> None:
    whole = events_of(healthy)
    os.truncate(path, int(path.stat().st_size * share) // PAGE * PAGE + odd)
    damage_at_start(path)
    with (
        LogReader(path, lenient=True) as log,
        pytest.raises(LogDamaged) as caught,
    ):
        history.verify(log)
    seq = caught.value.seq
    assert seq is not None
    assert seq > len(whole) * (share - 0.2)
    assert f"events 1 to {seq - 1} are intact" in caught.value.hint
    left, lost = what_is_left(path)
    assert (left, bool(lost)) == (whole[: seq - 1], True)


def test_any_page_that_is_lost_is_noticed_or_harmless(healthy: Path, folder: Path) -> None:
    whole, data = events_of(healthy), healthy.read_bytes()
    path = folder / "byre.db"
    shutil.copy(healthy.with_name("head"), folder)
    noticed = 0
    for start in range(0, len(data), PAGE):
        path.write_bytes(data[:start] + b"\xa5" * PAGE + data[start + PAGE :])
        noticed += is_noticed(path, whole)
    assert noticed >= len(data) // PAGE // 2


@pytest.mark.parametrize("seed", range(8))
def test_any_changed_bytes_are_noticed_or_harmless(healthy: Path, folder: Path, seed: int) -> None:
    whole, data = events_of(healthy), healthy.read_bytes()
    path = folder / "byre.db"
    shutil.copy(healthy.with_name("head"), folder)
    for turn in range(8):
        at = (seed * 8 + turn) * 2_654_435_761 % len(data)
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        is_noticed(path, whole)


def is_noticed(path: Path, whole: list[Event]) -> bool:
    """Prove a log as `byre run` does: it is damaged, or says what the healthy one does."""
    try:
        with EventLog(path, read_only=True) as log:
            history.prove(log)
            assert list(log.events()) == whole
    except LogDamaged:
        with contextlib.suppress(LogDamaged), LogReader(path, lenient=True) as log:
            for event, expected in zip(proof.intact(log), whole, strict=False):
                assert event == expected
        return True
    finally:
        for beside in path.parent.glob("byre.db-*"):
            beside.unlink()
    return False


def test_an_edited_event_ends_what_is_left(path: Path, healthy: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("DROP TRIGGER events_no_update")
        raw.execute("UPDATE events SET actor = 'nobody' WHERE seq = 101")
    damage = damage_at_start(path)
    assert (damage.seq, "events 1 to 100 are intact" in damage.hint) == (101, True)
    left, lost = what_is_left(path)
    assert (left, lost) == (
        events_of(healthy)[:100],
        "event 101 was edited: its hash does not fit its columns",
    )


# --- the write-ahead log --------------------------------------------------------------------------


def crashed(path: Path, count: int = 5) -> Path:
    """Append to a log and leave its files as a process that was killed does; returns a copy."""
    left = path.parent.parent / f"{path.parent.name}-crashed"
    with EventLog(path) as log:
        for number in range(count):
            log.append([host_event(f"in the WAL {number}")])
        # By a process of its own: closing a file that SQLite has open drops its locks.
        subprocess.run(["cp", "-a", f"{path.parent}/.", left], check=True)
    assert (left / "byre.db-wal").stat().st_size > 0
    return left / "byre.db"


@pytest.mark.parametrize("with_index", [True, False])
def test_a_wal_that_was_left_behind_is_taken_in(path: Path, *, with_index: bool) -> None:
    left = crashed(path)
    if not with_index:
        left.with_name("byre.db-shm").unlink()
    for read_only in (True, False):
        with EventLog(left, read_only=read_only) as log:
            history.prove(log)
            assert history.verify(log).events == EVENTS + 5


def test_a_wal_that_is_gone_is_missed(path: Path) -> None:
    left = crashed(path)
    left.with_name("byre.db-wal").unlink()
    left.with_name("byre.db-shm").unlink()
    damage = damage_at_start(left)
    assert damage.message == (
        "events 641 to 645 are missing: the log ends at 640, and 645 was acknowledged"
    )
    assert "is its WAL gone" in damage.hint
    assert f"`byre log restore {left}`" in damage.hint
    restore(Root(left.parent), left, boot_id="b", now_ns=lambda: 1, by=this_process())
    with EventLog(left) as log:
        # What tells of it, and what holds each disk back.
        assert history.verify(log).events == EVENTS + 1 + DISKS


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.95])
def test_a_wal_that_was_cut_off_or_torn_keeps_what_is_before(path: Path, share: float) -> None:
    left = crashed(path, 10)
    left.with_name("byre.db-shm").unlink()
    wal = left.with_name("byre.db-wal")
    data = bytearray(wal.read_bytes())
    for torn in (data[: int(len(data) * share)], _flipped(data, int(len(data) * share))):
        wal.write_bytes(torn)
        damage = damage_at_start(left)
        assert damage.seq is not None
        assert EVENTS < damage.seq <= EVENTS + 10
        events, lost = what_is_left(left)
        assert (len(events), bool(lost)) == (damage.seq - 1, True)


def _flipped(data: bytearray, at: int) -> bytearray:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def test_a_wal_of_another_log_is_noticed_before_anything_is_written(
    path: Path, folder: Path
) -> None:
    other = folder / "other" / "byre.db"
    with EventLog(other) as log:
        log.append([declaration(f"other-{number}") for number in range(200)])
    foreign = crashed(other, 30)
    shutil.copy(foreign.with_name("byre.db-wal"), path.parent)
    damage_at_start(path)
    path.with_name("byre.db-wal").unlink()
    with EventLog(path) as log:
        history.prove(log)
        assert history.verify(log).events == EVENTS


# --- something else in its place ------------------------------------------------------------------


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link(path: Path) -> None:
    elsewhere = path.parent / "elsewhere" / "byre.db"
    EventLog(elsewhere).close()
    path.symlink_to(elsewhere)


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def an_empty_file(path: Path) -> None:
    path.touch()


def a_new_log(path: Path) -> None:
    EventLog(path.parent / "new" / "byre.db").close()
    (path.parent / "new" / "byre.db").rename(path)


def another_roots_log(path: Path) -> None:
    with EventLog(path.parent / "other" / "byre.db") as log:
        log.append([host_event(f"{number}") for number in range(700)])
    (path.parent / "other" / "byre.db").rename(path)


def a_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("CREATE TABLE notes (text)")


def text(path: Path) -> None:
    path.write_text("not a database at all\n" * 1000)


@pytest.mark.parametrize(
    ("put", "words"),
    [
        (a_folder, "is a folder; a log is a regular file"),
        (a_link, "is a symlink to"),
        (a_fifo, "is a special file"),
        (lambda _: None, "events 1 to 640 are missing: the log ends at 0"),
        (an_empty_file, "events 1 to 640 are missing: the log ends at 0"),
        (a_new_log, "events 1 to 640 are missing: the log ends at 0"),
        (another_roots_log, "event 640 is another one than was acknowledged"),
        (a_database, "is not a log of byre"),
        (text, "file is not a database"),
    ],
)
def test_something_else_in_the_place_of_the_log_is_told(
    path: Path, put: Callable[[Path], None], words: str
) -> None:
    path.unlink()
    put(path)
    was_there = os.path.lexists(path)
    for read_only in (False, True):
        with pytest.raises(LogDamaged, match=words) as caught:
            EventLog(path, read_only=read_only)
        assert caught.value.exit_code == 6
    assert was_there == os.path.lexists(path)


# --- replaced while it is open --------------------------------------------------------------------


def by_an_older_copy(path: Path, healthy: Path) -> None:
    shutil.copy(healthy, path.parent / "copy")
    (path.parent / "copy").rename(path)


def deleted(path: Path, healthy: Path) -> None:
    del healthy
    path.unlink()


def without_its_wal(path: Path, healthy: Path) -> None:
    del healthy
    path.with_name("byre.db-wal").unlink()


@pytest.mark.parametrize("happens", [by_an_older_copy, deleted, without_its_wal])
def test_nothing_is_acknowledged_into_a_file_that_has_no_name(
    path: Path, healthy: Path, happens: Callable[[Path, Path], None]
) -> None:
    with EventLog(path) as log:
        log.append([host_event()])
        happens(path, healthy)
        for _ in range(2):
            with pytest.raises(LogDamaged, match="replaced or removed while it was open"):
                log.append([host_event()])


# --- the ways out ---------------------------------------------------------------------------------


def test_a_copy_made_while_the_log_was_in_use_can_be_put_back(path: Path) -> None:
    copy = path.parent / "copy.db"
    with EventLog(path) as log:
        log.append([host_event("before the copy")])
        with contextlib.closing(sqlite3.connect(path)) as raw:
            raw.execute("VACUUM INTO ?", (str(copy),))
        log.append([host_event("after the copy")])
    path.write_bytes(b"x" * 10_000)
    copy.rename(path)
    assert damage_at_start(path).seq == EVENTS + 2
    path.with_name("head").unlink()
    with EventLog(path) as log:
        history.prove(log)
        log.append([host_event()])
    with EventLog(path, read_only=True) as log:
        assert history.verify(log).events == EVENTS + 2


def test_a_broken_projection_is_refused_and_rebuilt_from_the_events(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE disks SET record = json_set(record, '$.state', 'paused')")
    damage = damage_at_start(path)
    assert "a record is not what the events say: sb-0: state: recorded paused" in damage.message
    assert "byre replay --repair" in damage.hint
    with EventLog(path) as log:
        repair.rebuild(log)
        history.prove(log)


def test_what_was_salvaged_goes_on_where_it_ends(path: Path) -> None:
    with EventLog(path, read_only=True) as log:
        root_id = log.root_id
    os.truncate(path, path.stat().st_size // 2 // PAGE * PAGE)
    new = path.parent / "new" / "byre.db"
    with LogReader(path, lenient=True) as log:
        kept = salvage(log, new)
    for name in ("byre.db", "head"):
        (new.parent / name).replace(path.with_name(name))
    with EventLog(path) as log:
        [event] = log.append([host_event()])
        assert (event.seq, event.prev_hash, log.root_id) == (kept.seq + 1, kept.hash, root_id)
        history.prove(log)


def test_nothing_is_overwritten_by_what_is_salvaged(path: Path) -> None:
    before = files(path.parent)
    with LogReader(path, lenient=True) as log:
        for target in (path, path.with_name("other.db")):
            with pytest.raises(RefusedError, match="exists"):
                salvage(log, target)
    assert before == files(path.parent)


def test_an_intact_log_is_salvaged_whole(path: Path, healthy: Path) -> None:
    assert what_is_left(path) == (events_of(healthy), "")

"""The oldest events go into an archive and lose nothing: at any point, whatever dies in between."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.bench import story
from statemachine import archive, checkpoints, history, repair, retention, timetravel
from statemachine.archive import Archive
from statemachine.errors import ByreError, LogDamaged, RefusedError, UsageError
from statemachine.eventlog import EventLog
from statemachine.events import Event
from statemachine.payloads import Requester
from statemachine.roster import replay
from tests.style import shellpages
from tests.unit.events_made import declaration, host_event

T = TypeVar("T")
BY = Requester(uid=0, user="root", pid=1, command="test")
EVENTS, DISKS = 300, 4
GIVE_UP_S = 60.0


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed log of a story; not to be changed."""
    path = tmp_path_factory.mktemp("told") / "byre.db"
    with EventLog(path) as log, pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "EVENTS_BETWEEN", 70)
        patch.setattr(story, "EVENTS_AT_ONCE", 20)
        story.write(log, events=EVENTS, disks=DISKS)
    return path


@pytest.fixture
def path(told: Path, folder: Path) -> Path:
    """A copy of it."""
    return copy(told, folder)


def copy(told: Path, folder: Path) -> Path:
    for name in ("byre.db", "head"):
        shutil.copy(told.with_name(name), folder / name)
    return folder / "byre.db"


def events_of(path: Path) -> list[Event]:
    with EventLog(path, read_only=True) as log:
        return list(log.events())


def archive_up_to(log: EventLog, seq: int, file: Path) -> retention.Archived | None:
    [event] = log.select("WHERE seq = ?", seq)
    return retention.archive_before(log, event.at + 1, file, by=BY)


def check_nothing_is_lost(path: Path, whole: list[Event], *archives: Path) -> None:
    """Check that log and archives have every event once, and that the records follow from them."""
    found: list[Event] = []
    for each in archives:
        with Archive(each) as opened:
            opened.verify()
            found += opened.events()
    by_hand = replay(whole)
    with EventLog(path) as log:
        history.prove(log)
        assert list(history.compare(log)) == []
        history.verify(log)
        found += log.events()
        assert {r.name: r for r in log.records()} == by_hand
        newest = timetravel.moment(log, log.last_seq(), everything=True)
        assert {r.name: r for r in newest.records} == by_hand
        assert repair.rebuild(log) == len(by_hand)
        assert {r.name: r for r in log.records()} == by_hand
    assert [each for each in found if each.type != "log.archived"] == whole


# --- at any point ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(1, 1000),
    cuts=st.lists(st.integers(1, 80), min_size=1, max_size=3, unique=True).map(sorted),
)
def test_for_any_history_archived_at_any_point_a_replay_equals_the_live_log(
    seed: int, cuts: list[int]
) -> None:
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "EVENTS_BETWEEN", 20)
        patch.setattr(checkpoints, "EVENTS_PER_DISK", 0)
        patch.setattr(story, "EVENTS_AT_ONCE", 7)
        patch.setattr(archive, "BLOCK_EVENTS", 11)
        patch.setattr(retention, "DELETE_EVENTS", 13)
        path, files = Path(name) / "byre.db", []
        with EventLog(path) as log:
            story.write(log, events=80, disks=2, seed=seed)
            whole = list(log.events())
            for cut in cuts:
                file = Path(name) / f"to-{cut}"
                done = archive_up_to(log, cut, file)
                assert done is not None
                assert done.span.last_seq >= cut
                files.append(file)
                log.append([declaration(f"new-{cut}")])
                whole += log.select("WHERE disk = ?", f"new-{cut}")
        whole.sort(key=lambda event: event.seq)
        check_nothing_is_lost(path, whole, *files)


def test_every_moment_is_found_in_the_log_or_in_the_archive(path: Path, tmp_path: Path) -> None:
    whole, file = events_of(path), tmp_path / "old"
    with EventLog(path) as log:
        archive_up_to(log, 200, file)
        with Archive(file) as opened:
            for seq in (1, 42, 70, 71, 199, 200, 201, EVENTS):
                source = opened if seq <= opened.span.last_seq else None
                found = (
                    source.moment(seq, everything=True)
                    if source
                    else timetravel.moment(log, seq, everything=True)
                )
                by_hand = replay(event for event in whole if event.seq <= seq)
                assert {record.name: record for record in found.records} == by_hand
            assert opened.seq_at(whole[99].at) == 100
            assert opened.seq_at(whole[0].at - 1) is None
            assert [e.seq for e in opened.events(after=50, until=60)] == list(range(51, 61))
        with pytest.raises(UsageError, match="events 1 to 200 are in an archive"):
            timetravel.moment(log, 199)


def test_a_disk_that_was_removed_before_the_archive_begins_its_next_generation_after_it(
    path: Path, tmp_path: Path
) -> None:
    with EventLog(path) as log:
        archive_up_to(log, EVENTS, tmp_path / "old")
        gone = next(record for record in log.records() if record.state == "removed")
        again = attrs.evolve(declaration(gone.name), generation=gone.generation + 1, expect=None)
        log.append([again])
        history.prove(log)
        assert list(history.compare(log)) == []
        assert timetravel.disk_at(log, gone.name, log.last_seq()) == log.record(gone.name)
        assert timetravel.disk_at(log, gone.name, log.begins_after().seq) == gone


# --- what it is -----------------------------------------------------------------------------------


def test_the_log_says_what_went_where_and_the_versions_go_on(path: Path, tmp_path: Path) -> None:
    whole = events_of(path)
    host = [event for event in whole if event.disk == "@host"]
    with EventLog(path) as log:
        done = archive_up_to(log, EVENTS, tmp_path / "old")
        assert done is not None
        [said] = log.events()
        assert (said.type, said.seq, said.version) == ("log.archived", EVENTS + 1, len(host) + 1)
        assert said.prev_hash == whole[-1].hash
        assert said.data["digest"] == done.digest
        log.append([host_event()])
        assert log.last_seq() == EVENTS + 2
        assert history.verify(log).events == 2


def test_nothing_as_old_as_that_changes_nothing(path: Path, tmp_path: Path) -> None:
    first = events_of(path)[0]
    with EventLog(path) as log:
        assert retention.archive_before(log, first.at, tmp_path / "old", by=BY) is None
        assert list(log.events()) == events_of(path)
    assert list(tmp_path.glob("old*")) == []


def test_what_is_in_the_way_is_left_alone(path: Path, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("mine")
    with EventLog(path) as log, pytest.raises(RefusedError, match="exists"):
        archive_up_to(log, 100, tmp_path / "old")
    assert (tmp_path / "old").read_text() == "mine"


def test_a_damaged_event_is_not_sealed_into_an_archive(path: Path, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("DROP TRIGGER events_no_update")
        raw.execute("UPDATE events SET reason = 'x' WHERE seq = 50")
    with EventLog(path) as log, pytest.raises(LogDamaged) as caught:
        archive_up_to(log, 100, tmp_path / "old")
    assert (caught.value.seq, list(tmp_path.glob("old*"))) == (50, [])


def test_every_changed_byte_of_an_archive_is_found_or_changes_nothing(
    path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "old"
    with EventLog(path) as log:
        archive_up_to(log, EVENTS, file)
    with Archive(file) as opened:
        whole = list(opened.events())
    good = file.read_bytes()
    for place in range(0, len(good), len(good) // 150):
        file.write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        with contextlib.suppress(ByreError), Archive(file) as opened:
            opened.verify()
            assert list(opened.events()) == whole
    for size in (0, 100, len(good) // 2):
        file.write_bytes(good[:size])
        with pytest.raises(ByreError), Archive(file) as opened:
            opened.verify()


def test_a_log_is_no_archive_and_an_archive_no_log(path: Path, tmp_path: Path) -> None:
    with EventLog(path) as log:
        archive_up_to(log, 100, tmp_path / "old")
    with pytest.raises(LogDamaged, match="no archive of byre"):
        Archive(path)
    with pytest.raises(LogDamaged, match="not a log of byre"):
        EventLog(tmp_path / "old", read_only=True)


def test_the_program_of_the_format_page_verifies_an_archive(path: Path, tmp_path: Path) -> None:
    file, whole = tmp_path / "old", events_of(path)
    with EventLog(path) as log:
        archive_up_to(log, EVENTS, file)
    [program] = shellpages.blocks("docs/reference/archive-format.md", "python")
    verifier = f"python - {file} <<'END'\n{program}END"
    assert shellpages.run(verifier, tmp_path).stdout.split()[-1] == whole[-1].hash
    with contextlib.closing(sqlite3.connect(file)) as raw, raw:
        raw.execute("UPDATE meta SET value = '0' WHERE key = 'prev_hash'")
    assert "was edited" in shellpages.run(verifier, tmp_path).stdout


# --- whatever dies --------------------------------------------------------------------------------


class Died(Exception):
    """The process, as far as the log can tell."""


@pytest.mark.parametrize("step", range(9))
def test_whatever_step_fails_nothing_is_lost_and_it_can_be_gone_on_with(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(retention, "DELETE_EVENTS", 50)
    whole, file, done = events_of(path), tmp_path / "old", []
    steps = (
        (archive, "_fill"),
        (archive, "_settle"),
        (retention, "_base"),
        (retention, "_begin_after"),
        (retention, "_told"),
        (retention, "_delete_some"),
    )

    def dying(name: str, work: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **named: object) -> object:
            if name == "_delete_some" and not file.exists():
                return work(*args, **named)
            done.append(name)
            if len(done) > step:
                raise Died(name)
            return work(*args, **named)

        return run

    with monkeypatch.context() as patch:
        for module, name in steps:
            patch.setattr(module, name, dying(name, getattr(module, name)))
        with EventLog(path) as log, contextlib.suppress(Died):
            archive_up_to(log, 200, file)
    has_begun_after = "_delete_some" in done
    check_nothing_is_lost(path, whole, *([file] if has_begun_after else []))
    with EventLog(path) as log:
        again = retention.archive_before(log, 1 << 62, tmp_path / "rest", by=BY)
    assert again is not None
    check_nothing_is_lost(path, whole, *([file] if has_begun_after else []), tmp_path / "rest")
    with contextlib.closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT min(seq) FROM events").fetchone()[0] > EVENTS


def archive_and_be_killed(path: Path, file: Path, transaction: int) -> None:
    """Be killed inside of a transaction, before its end."""
    count = 0
    before = EventLog.transact

    def transact(self: EventLog, work: Callable[[sqlite3.Connection], T]) -> T:
        def dying(connection: sqlite3.Connection) -> T:
            nonlocal count
            result = work(connection)
            count += 1
            if count == transaction:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return before(self, dying)

    EventLog.transact = transact  # type: ignore[method-assign]
    retention.DELETE_EVENTS = 50  # type: ignore[misc]
    with EventLog(path) as log:
        archive_up_to(log, 200, file)


@pytest.mark.parametrize("transaction", [1, 2, 3, 5])
def test_a_kill_inside_of_any_transaction_leaves_a_sound_log(
    path: Path, tmp_path: Path, transaction: int
) -> None:
    whole, file = events_of(path), tmp_path / "old"
    process = get_context("spawn").Process(
        target=archive_and_be_killed, args=(path, file, transaction), daemon=True
    )
    process.start()
    process.join(GIVE_UP_S)
    assert process.exitcode == -signal.SIGKILL
    with EventLog(path, read_only=True) as log:
        began_after = log.begins_after().seq
    assert began_after == (200 if transaction > 2 else 0)
    check_nothing_is_lost(path, whole, *([file] if began_after else []))


def test_vacuum_gives_the_room_back(path: Path, tmp_path: Path) -> None:
    with EventLog(path) as log:
        archive_up_to(log, EVENTS, tmp_path / "old")
        retention.vacuum(log)
        log.append([host_event()])
        history.prove(log)
    with contextlib.closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA freelist_count").fetchone()[0] == 0


def test_which_boot_was_the_last_is_known_though_its_event_is_in_an_archive(
    path: Path, tmp_path: Path
) -> None:
    with EventLog(path) as log:
        before = history.last_boot(log)
        archive_up_to(log, EVENTS, tmp_path / "old")
        assert log.select("WHERE type = 'host.booted'") == []
        assert (history.last_boot(log), bool(before)) == (before, True)

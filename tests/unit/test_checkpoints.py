"""Checkpoints say what the events say, are bound to their event, and bound what a start reads."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.bench import story
from statemachine import checkpoints, history, payloads, repair, timetravel
from statemachine.checkpoints import Checkpoint
from statemachine.errors import LogDamaged, UsageError
from statemachine.eventlog import EventLog
from statemachine.machine import State, Trigger
from statemachine.record import Record
from statemachine.roster import replay
from tests.unit.events_made import declaration, host_event, of_disk

EVENTS, DISKS = 640, 5


@pytest.fixture
def path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A closed log of a story, with a checkpoint about every hundred events."""
    monkeypatch.setattr(checkpoints, "EVENTS_BETWEEN", 100)
    monkeypatch.setattr(story, "EVENTS_AT_ONCE", 25)
    with EventLog(folder / "byre.db") as log:
        story.write(log, events=EVENTS, disks=DISKS)
    return folder / "byre.db"


def all_checkpoints(log: EventLog) -> Iterator[Checkpoint]:
    after = 0
    while True:
        found = log.at_one_moment(
            lambda connection, after=after: checkpoints.first_after(connection, after=after)  # type: ignore[misc]
        )
        if found is None:
            return
        yield found
        after = found.seq


def state_by_hand(log: EventLog, seq: int) -> dict[str, Record]:
    return replay(event for event in log.events() if event.seq <= seq)


def change(path: Path, *statements: str) -> None:
    """Change a log as somebody would who took its guards away first."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as raw:
        for name in ("update", "delete"):
            raw.execute(f"DROP TRIGGER IF EXISTS checkpoints_no_{name}")
            raw.execute(f"DROP TRIGGER IF EXISTS events_no_{name}")
        for statement in statements:
            assert raw.execute(statement).rowcount > 0


# --- what they say --------------------------------------------------------------------------------


def test_they_are_written_as_events_are_appended_and_say_what_these_say(path: Path) -> None:
    with EventLog(path, read_only=True) as log:
        found = list(all_checkpoints(log))
        assert EVENTS // 130 <= len(found) <= EVENTS // 100
        gone: dict[str, Record] = {}
        for each in found:
            each.check()
            gone |= {record.name: record for record in each.removed_records()}
            living = {record.name: record for record in each.records()}
            assert {**gone, **living} == state_by_hand(log, each.seq)
            assert each.disks == len(living)
            assert each.hash == log.select("WHERE seq = ?", each.seq)[0].hash


def test_one_that_is_asked_for_stands_on_the_newest_event_and_is_written_once(path: Path) -> None:
    with EventLog(path) as log:
        assert log.checkpoint()
        assert not log.checkpoint()
        assert list(all_checkpoints(log))[-1].seq == log.last_seq()
        log.append([host_event()])
        assert log.checkpoint()


def test_an_empty_log_has_none(folder: Path) -> None:
    with EventLog(folder / "byre.db") as log:
        assert not log.checkpoint()
        history.prove(log)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE checkpoints SET disks = disks + 1",
        "DELETE FROM checkpoints",
        "INSERT OR REPLACE INTO checkpoints SELECT * FROM checkpoints",
        (
            "INSERT INTO checkpoints SELECT seq + 1, hash, earliest, disks, removed, living, gone,"
            " digest FROM checkpoints LIMIT 1"
        ),
        "DELETE FROM events WHERE seq = 1",
        "INSERT INTO archives SELECT 1, hash, 1, prev_hash, at, at, '', '', at FROM events LIMIT 1",
    ],
)
def test_the_guards_refuse_all_but_a_new_one_that_stands_on_its_event(
    path: Path, statement: str
) -> None:
    with (
        contextlib.closing(sqlite3.connect(path)) as raw,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        raw.execute(statement)


def test_the_guards_let_no_event_go_that_is_in_no_archive_whatever_is_said(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("INSERT INTO meta VALUES ('upkeep', '')")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute("DELETE FROM events WHERE seq = 1")


# --- a start --------------------------------------------------------------------------------------


def test_a_start_reads_from_the_newest_one_and_the_whole_proof_reads_all(path: Path) -> None:
    """Damage of long ago is no reason not to start; the auditor's command finds it."""
    change(path, "UPDATE events SET actor = 'x' WHERE seq = 7")
    with EventLog(path) as log:
        history.prove(log)
        with pytest.raises(LogDamaged) as caught:
            history.verify(log)
    assert caught.value.seq == 7


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE events SET actor = 'x' WHERE seq = {seq} + 1", "was edited"),
        ("UPDATE events SET actor = 'x' WHERE seq = {seq}", "is not what was written"),
        ("UPDATE events SET hash = prev_hash WHERE seq = {seq}", "stands on another event"),
        ("UPDATE checkpoints SET disks = 9 WHERE seq = {seq}", "checkpoint at event"),
        ("UPDATE checkpoints SET living = x'00' WHERE seq = {seq}", "checkpoint at event"),
        (("UPDATE disks SET record = json_set(record, '$.attempts', 7), attempts = 7 "
         "WHERE state <> 'removed'"), "attempts: recorded 7"),
        ("DELETE FROM disks WHERE state <> 'removed'", "recorded none, replayed one"),
        ("UPDATE disks SET state = 'paused' WHERE state = 'removed'", "replayed none"),
    ],
)  # fmt: skip
def test_what_a_start_relies_on_is_proved(path: Path, statement: str, told: str) -> None:
    with EventLog(path, read_only=True) as log:
        seq = list(all_checkpoints(log))[-1].seq
    change(path, statement.format(seq=seq))
    with EventLog(path) as log, pytest.raises(LogDamaged, match=told):
        history.prove(log)


def test_a_damaged_checkpoint_is_made_anew_by_a_repair(path: Path) -> None:
    change(path, "UPDATE checkpoints SET living = x'00'", "DELETE FROM disks")
    with EventLog(path) as log:
        assert repair.rebuild(log) == len(state_by_hand(log, EVENTS * 2))
        history.prove(log)
        assert list(history.compare(log)) == []
        assert [each.seq for each in all_checkpoints(log)] == [log.last_seq()]


# --- earlier moments ------------------------------------------------------------------------------


def test_every_moment_is_what_the_events_until_then_say(path: Path) -> None:
    with EventLog(path, read_only=True) as log:
        for seq in (0, 1, 3, 99, 100, 101, 250, 333, EVENTS):
            by_hand = state_by_hand(log, seq)
            everything = timetravel.moment(log, seq, everything=True)
            assert {record.name: record for record in everything.records} == by_hand
            assert timetravel.moment(log, seq).records == [
                record for name, record in sorted(by_hand.items()) if record.state != "removed"
            ]
            for name in ("sb-000000", "sb-000004", "sb-000007", "never"):
                assert timetravel.disk_at(log, name, seq) == by_hand.get(name)


def test_a_time_is_the_last_event_of_that_time_or_earlier(path: Path) -> None:
    with EventLog(path, read_only=True) as log:
        events = list(log.events())
        for event in (events[0], events[120], events[-1]):
            for at in (event.at - 1, event.at, event.at + 1):
                last = max((each.seq for each in events if each.at <= at), default=0)
                assert timetravel.seq_at(log, at) == last
        assert timetravel.seq_at(log, 0) == 0


def test_a_clock_that_went_back_is_found_behind_later_times(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "EVENTS_BETWEEN", 3)
    times = [100, 200, 300, 400, 50, 60, 70, 500, 600, 55, 700, 800, 900]
    clock = iter(times)
    with EventLog(folder / "byre.db", clock_ns=lambda: next(clock)) as log:
        for _ in times:
            log.append([host_event()])
        assert len(list(all_checkpoints(log))) > 2
        for at in range(0, 1000, 5):
            last = max((n for n, each in enumerate(times, 1) if each <= at), default=0)
            assert timetravel.seq_at(log, at) == last


def test_a_moment_that_is_yet_to_come_is_refused(path: Path) -> None:
    told = "no event 100000: the log has events 1 to"
    with EventLog(path, read_only=True) as log, pytest.raises(UsageError, match=told):
        timetravel.moment(log, 100_000)


def test_several_that_append_at_once_leave_sound_checkpoints(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "EVENTS_BETWEEN", 2)
    monkeypatch.setattr(checkpoints, "EVENTS_PER_DISK", 0)
    with EventLog(folder / "byre.db") as log, EventLog(folder / "byre.db") as other:
        for number in range(20):
            (log, other)[number % 2].append([declaration(f"sb-{number}")])
        assert len(list(all_checkpoints(log))) > 3
        for each in all_checkpoints(log):
            assert {r.name: r for r in each.records()} == state_by_hand(log, each.seq)
        history.prove(other)


def test_one_is_written_only_when_enough_happened_since_the_last(folder: Path) -> None:
    with EventLog(folder / "byre.db") as log:
        log.append([host_event(), host_event()])
        assert not log.checkpoint(after_events=3)
        log.append([host_event()])
        assert log.checkpoint(after_events=3)
        log.append([host_event(), host_event()])
        assert not log.checkpoint(after_events=3)


@pytest.mark.parametrize("with_checkpoint", [False, True])
def test_a_disk_that_is_wanted_again_while_it_is_removed_is_there_at_that_moment(
    folder: Path, *, with_checkpoint: bool
) -> None:
    gone = payloads.TransitionCompleted(
        trigger=Trigger.REMOVE, source=State.ABSENT, target=State.REMOVED
    )
    with EventLog(folder / "byre.db") as log:
        for name, wanted in (("sb-1", "live"), ("sb-2", "removed")):
            wish = payloads.DiskDeclared(spec={"state": wanted})
            log.append([declaration(name), of_disk(name, wish), of_disk(name, gone)])
        if with_checkpoint:
            assert log.checkpoint()
        assert [record.state for record in log.records()] == [State.REMOVED] * 2
        assert [record.name for record in log.in_use()] == ["sb-1"]
        then = timetravel.moment(log, log.last_seq())
        assert then.records == log.in_use()
        assert len(timetravel.moment(log, log.last_seq(), everything=True).records) == 2

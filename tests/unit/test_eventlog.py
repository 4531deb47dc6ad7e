"""The log: append-only, chained, all or none, grouped, durable before acknowledged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from statemachine import history, repair
from statemachine.batch import Request
from statemachine.errors import ByreError, LogDamaged, LogUnavailable, VersionConflict
from statemachine.eventlog import EventLog
from statemachine.events import GENESIS, Event, NewEvent
from statemachine.turns import Waiting
from tests.unit.events_made import declaration, host_event

AT_NS = 1_767_225_600_123_456_789


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "root" / "byre.db"


@pytest.fixture
def log(path: Path) -> Iterator[EventLog]:
    with EventLog(path, boot_id="boot-1", clock_ns=lambda: AT_NS) as made:
        yield made


# --- append-only, whoever opens the file ----------------------------------------------------------


REST = (
    "type, at, actor, reason, correlation_id, boot_id, data, prev_hash, hash "
    "FROM events WHERE seq = 1"
)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET actor = 'somebody' WHERE seq = 1",
        "DELETE FROM events WHERE seq = 2",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events SELECT * FROM events WHERE seq = 2",
        "REPLACE INTO events SELECT * FROM events WHERE seq = 1",
        f"INSERT INTO events SELECT 9, disk, generation, 9, {REST}",
        f"INSERT INTO events SELECT NULL, disk, generation, 9, {REST}",
        f"INSERT OR REPLACE INTO events SELECT 3, disk, generation, version, {REST}",
        f"INSERT OR IGNORE INTO events SELECT 3, disk, generation, version, {REST}",
    ],
)
def test_the_database_itself_refuses_to_change_what_was_written(
    log: EventLog, path: Path, statement: str
) -> None:
    log.append([declaration("sb-1"), declaration("sb-2")])
    before = list(log.events())
    with sqlite3.connect(path) as raw, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute(statement)
    raw.close()
    assert before == list(log.events())


def test_one_version_of_a_disk_exists_once(log: EventLog) -> None:
    log.append([declaration("sb-1")])
    with pytest.raises(VersionConflict):
        log.append([declaration("sb-1")])
    assert log.last_seq() == 1


def test_a_decision_on_an_old_record_is_refused(log: EventLog) -> None:
    log.append([declaration("sb-1")])
    record = log.record("sb-1")
    assert record is not None
    again = attrs.evolve(declaration("sb-1"), expect=record.expect, generation=record.generation)
    log.append([again])
    with pytest.raises(VersionConflict, match=r"sb-1.*\(1, 1\).*\(1, 2\)"):
        log.append([again])


# --- the chain ------------------------------------------------------------------------------------


def test_the_hash_covers_all_columns_in_a_canonical_form(log: EventLog) -> None:
    [event] = log.append([attrs.evolve(host_event("größer"), reason='said "so"')])
    data = json.dumps(
        {"pid": 1, "v": 1, "why": "größer"}, separators=(",", ":"), ensure_ascii=False
    )
    canonical = (
        '[1,"@host",0,1,"reconciler.stopped",1767225600123456789,"tester","said \\"so\\"","",'
        f'"boot-1",{json.dumps(data, ensure_ascii=False)},"{"0" * 64}"]'
    )
    assert hashlib.sha256(canonical.encode()).hexdigest() == event.hash


def test_the_hash_of_a_known_event_never_changes(log: EventLog) -> None:
    [event] = log.append([host_event("SIGTERM")])
    assert (event.prev_hash, str(event.seq)) == (GENESIS, "1")
    text = (
        '[1,"@host",0,1,"reconciler.stopped",1767225600123456789,"tester","","","boot-1",'
        '"{\\"pid\\":1,\\"v\\":1,\\"why\\":\\"SIGTERM\\"}",'
        '"0000000000000000000000000000000000000000000000000000000000000000"]'
    )
    assert hashlib.sha256(text.encode()).hexdigest() == event.hash


def test_each_event_is_chained_to_the_one_before(log: EventLog) -> None:
    first, second = log.append([host_event(), host_event()])
    [third] = log.append([host_event()])
    assert [first.hash, second.hash] == [second.prev_hash, third.prev_hash]
    assert history.verify(log).events == 3


# --- all or none, grouped -------------------------------------------------------------------------


def test_a_request_whose_second_event_conflicts_leaves_nothing(log: EventLog) -> None:
    log.append([declaration("sb-2")])
    with pytest.raises(VersionConflict):
        log.append([declaration("sb-1"), declaration("sb-2")])
    assert (log.last_seq(), log.record("sb-1")) == (1, None)


def test_a_refused_request_does_not_harm_another_one_of_its_group(log: EventLog) -> None:
    log.append([declaration("sb-2")])
    outcomes = appended_together(
        log, [[declaration("sb-1"), declaration("sb-2")], [declaration("sb-3")], [host_event()]]
    )
    assert [VersionConflict, list, list] == [type(each) for each in outcomes]
    assert (log.record("sb-1"), history.verify(log).events) == (None, 3)
    assert log.record("sb-3") is not None


def test_two_of_a_group_that_want_one_version_get_it_once(log: EventLog) -> None:
    outcomes = appended_together(log, [[declaration("sb-1")] for _ in range(5)])
    assert sum(isinstance(each, list) for each in outcomes) == 1
    assert sum(isinstance(each, VersionConflict) for each in outcomes) == 4


def test_many_threads_share_few_commits(log: EventLog) -> None:
    before = log.commits
    outcomes = appended_together(log, [[declaration(f"sb-{number}")] for number in range(64)])
    assert all(isinstance(each, list) for each in outcomes)
    assert history.verify(log).events == 64
    assert log.commits - before <= 8


def test_nothing_is_acknowledged_before_another_process_could_read_it(
    log: EventLog, path: Path
) -> None:
    missing: list[int] = []

    def work(number: int) -> None:
        raw = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        for turn in range(5):
            [event] = log.append([declaration(f"sb-{number}-{turn}")])
            if not raw.execute("SELECT 1 FROM events WHERE seq = ?", (event.seq,)).fetchall():
                missing.append(event.seq)
        raw.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing == []
    assert history.verify(log).events == 40


def test_what_is_not_committed_is_not_read(log: EventLog, path: Path) -> None:
    seen: list[int] = []
    with EventLog(path) as other:

        def look() -> int:
            seen.append(other.last_seq())
            return AT_NS

        log._clock_ns = look  # noqa: SLF001
        log.append([host_event()])
        assert (seen, other.last_seq()) == ([0], 1)


def test_an_interrupted_commit_is_acknowledged_to_nobody(log: EventLog) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    log._clock_ns = interrupted  # noqa: SLF001
    waiting = Request([host_event()])
    # Another thread's, which commits with ours.
    log._turns._queue.append(Waiting(waiting))  # noqa: SLF001
    with pytest.raises(KeyboardInterrupt):
        log.append([host_event()])
    assert (waiting.settled, isinstance(waiting.error, LogUnavailable)) == (True, True)
    log._clock_ns = lambda: AT_NS  # noqa: SLF001
    log.append([host_event()])
    assert history.verify(log).events == 1


# --- the projection -------------------------------------------------------------------------------


def test_a_record_that_cannot_be_read_is_damage_and_is_healed_by_a_rebuild(
    log: EventLog, path: Path
) -> None:
    log.append([declaration("sb-1"), declaration("sb-2")])
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE disks SET record = '{\"name\":' WHERE name = 'sb-1'")
    raw.close()
    for ask in (lambda: log.record("sb-1"), log.records):
        with pytest.raises(LogDamaged, match="table `disks`") as caught:
            ask()
        assert "byre replay --repair" in caught.value.hint
    assert repair.rebuild(log) == 2
    assert list(history.compare(log)) == []


def test_an_append_on_a_record_that_cannot_be_read_says_that_the_log_is_damaged(
    log: EventLog, path: Path
) -> None:
    log.append([declaration("sb-1")])
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE disks SET record = 'nonsense'")
    raw.close()
    declared = attrs.evolve(declaration("sb-1"), expect=(1, 1), generation=1)
    with EventLog(path) as another, pytest.raises(LogDamaged):
        another.append([declared])
    assert log.last_seq() == 1


def test_who_wrote_a_record_needs_not_read_it_until_somebody_else_has_written(
    log: EventLog, path: Path
) -> None:
    stored = log.append([declaration("sb-1")])
    before = log.record("sb-1")
    assert before is not None
    with EventLog(path) as another:
        another.append([attrs.evolve(declaration("sb-1"), expect=before.expect, generation=1)])
    with pytest.raises(VersionConflict):
        log.append([attrs.evolve(declaration("sb-1"), expect=before.expect, generation=1)])
    after = log.advance([attrs.evolve(declaration("sb-1"), expect=(1, 2), generation=1)])
    assert after is not None
    assert after == log.record("sb-1")
    assert (after.seq, after.expect) == (stored[0].seq + 2, (1, 3))


def test_a_disk_that_was_not_there_is_looked_for_when_somebody_else_has_written(
    log: EventLog, path: Path
) -> None:
    with pytest.raises(VersionConflict):
        log.append([attrs.evolve(declaration("sb-1"), expect=(1, 1), generation=1)])
    with EventLog(path) as another:
        another.append([declaration("sb-1")])
    after = log.advance([attrs.evolve(declaration("sb-1"), expect=(1, 1), generation=1)])
    assert after == log.record("sb-1")


def test_more_disks_than_are_kept_in_memory_are_read_again(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statemachine.eventlog.KNOWN_MAX", 1)
    names = ["sb-1", "sb-2", "sb-3"]
    log.append([declaration(name) for name in names])
    for version in (1, 2):
        for name in names:
            next_one = attrs.evolve(declaration(name), expect=(1, version), generation=1)
            assert log.advance([next_one]) == log.record(name)


def test_a_record_of_a_transaction_that_failed_is_not_kept(log: EventLog, path: Path) -> None:
    log.append([declaration("sb-1")])
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TRIGGER no BEFORE UPDATE ON disks BEGIN SELECT RAISE(ABORT, 'no'); END")
    next_one = attrs.evolve(declaration("sb-1"), expect=(1, 1), generation=1)
    with pytest.raises(LogUnavailable, match="no"):
        log.append([next_one])
    raw.execute("DROP TRIGGER no")
    raw.close()
    after = log.advance([next_one])
    assert after is not None
    assert after == log.record("sb-1")
    assert after.expect == (1, 2)


def test_a_record_that_is_not_what_the_events_say_is_found_and_named(
    log: EventLog, path: Path
) -> None:
    log.append([declaration("sb-1"), declaration("sb-2")])
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE disks SET record = json_set(record, '$.state', 'paused')"
                    " WHERE name = 'sb-1'")  # fmt: skip
        raw.execute("DELETE FROM disks WHERE name = 'sb-2'")
    raw.close()
    found = [str(difference) for difference in history.compare(log)]
    assert found == ["sb-1: state: recorded paused, replayed absent",
            "sb-2: record: recorded none, replayed one"]  # fmt: skip
    repair.rebuild(log)
    assert list(history.compare(log)) == []


class Busy(EventLog):
    """A log that somebody else appends to right before its events are read."""

    @contextlib.contextmanager
    def frozen(self) -> Iterator[sqlite3.Connection]:
        with super().frozen() as connection:
            with EventLog(self.path) as other:
                other.append([declaration(f"sb-{other.last_seq() + 1}")])
            yield connection


def test_what_others_append_meanwhile_is_no_difference(log: EventLog, path: Path) -> None:
    log.append([declaration("sb-1")])
    with Busy(path, read_only=True) as busy:
        assert list(history.compare(busy)) == []
        history.prove(busy)
    assert [record.name for record in log.records()] == ["sb-1", "sb-2", "sb-3", "sb-4"]


# --- helpers --------------------------------------------------------------------------------------


def appended_together(
    log: EventLog, requests: list[list[NewEvent]]
) -> list[list[Event] | ByreError]:
    """Append from one thread each, all waiting for the same commit, as the first one is slow."""
    outcomes: list[list[Event] | ByreError] = [[] for _ in requests]
    everybody_waits = threading.Event()

    def slow() -> int:
        everybody_waits.wait(5)
        return AT_NS

    def work(number: int) -> None:
        try:
            outcomes[number] = log.append(requests[number])
        except ByreError as error:
            outcomes[number] = error

    log._clock_ns = slow  # noqa: SLF001 - holds the first commit until the others wait
    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(requests))]
    for thread in threads:
        thread.start()
    everybody_waits.set()
    for thread in threads:
        thread.join()
    log._clock_ns = lambda: AT_NS  # noqa: SLF001
    return outcomes

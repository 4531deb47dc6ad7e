"""A log of an older schema becomes a newer one, all or nothing; one of a newer one is left alone.

`data/root_of_schema_1.sql` is the log of a whole root, dumped as version 1 had written it: disks in
every state, one faulted, one stalled, one in flight, one in its second generation.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from statemachine import history, schema
from statemachine.errors import LogDamaged, RefusedError
from statemachine.eventlog import EventLog
from tests.unit.events_made import host_event

if TYPE_CHECKING:
    from sqlite_utils import Database

DUMP = Path(__file__).parent / "data" / "root_of_schema_1.sql"
STATES = {
    "again-1": "paused",
    "attached-1": "attached",
    "fault-1": "paused",
    "flight-1": "absent",
    "live-1": "snapshotted",
    "removed-1": "removed",
    "restored-1": "restored",
    "stalled-1": "attached",
}
HEAD = "795a58cb3aeb56823442dc4116289f5f9fcd45a9d315479c1462bdaad0c61893"
EVENTS = 61
GIVE_UP_S = 60.0
NEWEST = schema.SCHEMA_VERSION


@pytest.fixture
def old(folder: Path) -> Path:
    """A closed log of schema version 1."""
    path = folder / "byre.db"
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.executescript(DUMP.read_text(encoding="utf-8"))
        raw.execute("PRAGMA journal_mode = WAL")
    return path


def version(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return schema.version_of(raw)


def whole_schema(path: Path) -> set[tuple[str, str, str]]:
    """Return what is in the file, with spaces as one space."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        rows = raw.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master").fetchall()
    return {(kind, name, " ".join(sql.split())) for kind, name, sql in rows}


def contents(folder: Path) -> dict[str, bytes]:
    """Return what the log's files say; a reader makes an empty WAL, and the index beside it."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {name: data for name, data in found.items() if data and not name.endswith("-shm")}


def check_all_is_there(log: EventLog) -> None:
    found = history.verify(log)
    assert (found.events, found.hash, found.unknown) == (EVENTS, HEAD, 0)
    assert list(history.compare(log)) == []
    assert {record.name: record.state.value for record in log.records()} == STATES
    assert log.root_id == "bb58df918aaf323d"


# --- from older to newer --------------------------------------------------------------------------


def test_an_old_log_is_migrated_and_says_the_same(old: Path) -> None:
    assert version(old) == 1
    with EventLog(old) as log:
        check_all_is_there(log)
        log.append([host_event()])
        assert history.verify(log).events == EVENTS + 1
    assert version(old) == schema.SCHEMA_VERSION


def test_a_migrated_log_has_the_very_schema_of_a_new_one(old: Path) -> None:
    EventLog(old).close()
    new = old.parent / "new" / "byre.db"
    EventLog(new).close()
    assert whole_schema(new) == whole_schema(old)


def test_the_guards_hold_in_a_migrated_log(old: Path) -> None:
    EventLog(old).close()
    with (
        contextlib.closing(sqlite3.connect(old)) as raw,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        raw.execute("DELETE FROM events WHERE seq = 61")


def test_version_2_shows_whether_a_disk_is_frozen_and_how_large_its_cow_is(old: Path) -> None:
    with contextlib.closing(sqlite3.connect(old)) as raw:
        before = raw.execute("SELECT * FROM disk_now").fetchall()
    EventLog(old).close()
    with contextlib.closing(sqlite3.connect(old)) as raw:
        raw.execute(
            "UPDATE disks SET record = json_set(record, '$.frozen', json(?)) WHERE name = 'live-1'",
            ('{"message": "1 MiB is free", "since": 1}',),
        )
        after = raw.execute("SELECT * FROM disk_now").fetchall()
        rows = raw.execute("SELECT name, frozen, cow_bytes FROM disk_now").fetchall()
    new = {name: (frozen, size) for name, frozen, size in rows}
    assert [row[: len(before[0])] for row in after] == before, "the old columns come first"
    assert new["live-1"] == ("1 MiB is free", 1_064_960)
    assert (new["again-1"], new["removed-1"]) == ((None, 1_064_960), (None, None))


def test_an_old_log_answers_questions_and_stays_as_it_is(old: Path) -> None:
    before = contents(old.parent)
    with EventLog(old, read_only=True) as log:
        check_all_is_there(log)
        assert log.record("fault-1") is not None
    assert before == contents(old.parent)
    assert version(old) == 1


def test_several_that_migrate_at_once_do_it_once(old: Path) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with EventLog(old) as log:
                log.append([host_event()])
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with EventLog(old, read_only=True) as log:
        assert history.verify(log).events == EVENTS + 4


# --- a crash amid ---------------------------------------------------------------------------------


def migrate_and_die(path: Path, after: int) -> None:
    """Open an old log for writing and be killed after so many of the migration's statements."""
    made = 0

    def die() -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("nobody survives that")

    def step(database: Database) -> None:
        nonlocal made
        for name, query in schema._VIEWS.items():  # noqa: SLF001 - as the step itself does it
            for change in (f"DROP VIEW {name}", f"CREATE VIEW {name} AS {query}"):
                if made == after:
                    die()
                database.execute(change)
                made += 1
        die()

    schema.MIGRATIONS = (schema.MIGRATIONS[0], step)  # type: ignore[misc]
    EventLog(path)


@pytest.mark.parametrize("after", [0, 1, 4, 6])
def test_a_crash_amid_a_migration_leaves_the_old_version(old: Path, after: int) -> None:
    before = whole_schema(old)
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=migrate_and_die, args=(old, after), daemon=True)
    process.start()
    process.join(GIVE_UP_S)
    assert process.exitcode == -signal.SIGKILL
    assert (version(old), before) == (1, whole_schema(old))
    with EventLog(old) as log:
        check_all_is_there(log)


def test_a_migration_that_fails_leaves_the_old_version(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(database: Database) -> None:
        database.execute("DROP VIEW disk_now")
        raise sqlite3.OperationalError("no")

    before = whole_schema(old)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (schema.MIGRATIONS[0], step))
        with pytest.raises(Exception, match="no"):
            EventLog(old)
    assert (version(old), before) == (1, whole_schema(old))


# --- versions that are none -----------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_log_is_refused_and_not_touched(old: Path, *, read_only: bool) -> None:
    with contextlib.closing(sqlite3.connect(old)) as raw:
        raw.execute("PRAGMA user_version = 99")
    before = contents(old.parent)
    with pytest.raises(
        RefusedError, match=f"schema 99; this byre knows up to {schema.SCHEMA_VERSION}"
    ) as caught:
        EventLog(old, read_only=read_only)
    assert (caught.value.exit_code, before) == (4, contents(old.parent))


@pytest.mark.parametrize("number", [0, -1])
def test_a_version_that_never_was_is_damage_and_not_migrated(old: Path, number: int) -> None:
    with contextlib.closing(sqlite3.connect(old)) as raw:
        raw.execute(f"PRAGMA user_version = {number}")
    before = contents(old.parent)
    with pytest.raises(LogDamaged, match=f"there are 1 to {schema.SCHEMA_VERSION}"):
        EventLog(old)
    assert before == contents(old.parent)

"""The database of the log: its tables, its guards, its views, and how older files become newer.

`events` is append-only by triggers in the database itself, whoever opens the file. `disks` is the
projection. The views are for people with `sqlite3`, `sqlite-utils` or Datasette and no byre.

Each migration is one step from a schema version to the next, inside one transaction; the version
is `PRAGMA user_version`. May be imported by what reads or writes the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from statemachine.shorthand import GIVEN

if TYPE_CHECKING:
    import sqlite3

    from sqlite_utils import Database

APPLICATION_ID: Final = 0x42595245  # "BYRE", so that `file` and byre know the file

EVENT_COLUMNS: Final[dict[str, type]] = {
    "seq": int,
    "disk": str,
    "generation": int,
    "version": int,
    "type": str,
    "at": int,
    "actor": str,
    "reason": str,
    "correlation_id": str,
    "boot_id": str,
    "data": str,
    "prev_hash": str,
    "hash": str,
}
SELECT_EVENTS: Final = f"SELECT {', '.join(EVENT_COLUMNS)} FROM events"  # noqa: S608 - constants
SELECT_NEWEST: Final = f"{SELECT_EVENTS} ORDER BY seq DESC LIMIT 1"

DISK_COLUMNS: Final[dict[str, type]] = {
    "name": str,
    "id": str,
    "generation": int,
    "version": int,
    "seq": int,
    "state": str,
    "desired": str,
    "driver": str,
    "base": str,
    "device": str,
    "attempts": int,
    "next_retry_at": int,
    "updated_at": int,
    "record": str,
}

CHECKPOINT_COLUMNS: Final[dict[str, type]] = {
    "seq": int,
    "hash": str,
    "earliest": int,
    "disks": int,
    "removed": int,
    "living": bytes,
    "gone": bytes,
    "digest": str,
}
ARCHIVE_COLUMNS: Final[dict[str, type]] = {
    "last_seq": int,
    "last_hash": str,
    "first_seq": int,
    "prev_hash": str,
    "first_at": int,
    "last_at": int,
    "file": str,
    "digest": str,
    "archived_at": int,
}
UPKEEP: Final = "upkeep"
"""The row of `meta` that is there while something is deleted that may be, and never after."""

_GUARDS: Final = """
CREATE TRIGGER events_no_update BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events is append-only: no update'); END;

CREATE TRIGGER events_no_delete BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events is append-only: no delete'); END;

-- INSERT OR REPLACE deletes without a DELETE trigger, so a new row must be new and the next one.
CREATE TRIGGER events_in_order BEFORE INSERT ON events
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM events)
BEGIN SELECT RAISE(ABORT, 'events is append-only: seq must be the next one'); END;

CREATE TRIGGER events_no_replace BEFORE INSERT ON events
WHEN EXISTS (SELECT 1 FROM events WHERE disk = NEW.disk AND generation = NEW.generation
             AND version = NEW.version)
BEGIN SELECT RAISE(ABORT, 'events is append-only: this version exists'); END;
"""

IN_USE: Final = "state <> 'removed' OR desired <> 'removed'"
"""Which rows of `disks` are not just history; a query that says it so is served by an index."""
CORRELATION_CHARS: Final = 8
"""How much of a correlation id is in its index; two requests with the same are told apart."""
MAY_BEGIN: Final = "type NOT IN ('transition.started', 'transition.completed', 'transition.failed')"
"""What holds of each event that may begin the story of a request; the index has only these."""

_REQUESTS_INDEX: Final = f"""
CREATE INDEX events_requests ON events (substr(correlation_id, 1, {CORRELATION_CHARS}))
WHERE {MAY_BEGIN}"""

COMMON_TYPES: Final = ("disk.declared", "transition.started", "transition.completed")
"""The types that most events are of. To find every third row by an index is to read the table."""
IS_RARE: Final = f"type NOT IN ({', '.join(map(repr, COMMON_TYPES))})"
"""What holds of each event in the index of types; a query by type must say so to get it."""

# Where the clock was set back: between two of these places `at` rises with `seq`.
_CLOCK_STEPS: Final = "CREATE TABLE clock_steps (seq INTEGER PRIMARY KEY) STRICT"
PAST_CLOCK_STEPS: Final = """
INSERT INTO clock_steps
SELECT e.seq FROM events AS e JOIN events AS before ON before.seq = e.seq - 1
WHERE e.at < before.at ORDER BY e.seq"""
_NOTE_CLOCK_STEP: Final = """
CREATE TRIGGER events_clock_step AFTER INSERT ON events
WHEN NEW.at < (SELECT at FROM events WHERE seq = NEW.seq - 1)
BEGIN INSERT INTO clock_steps (seq) VALUES (NEW.seq); END"""

_GUARDS_OF_CHECKPOINTS: Final = """
-- Only what is in an archive may go, and only while somebody says that this is what he does.
CREATE TRIGGER events_no_delete BEFORE DELETE ON events
WHEN OLD.seq > (SELECT coalesce(max(last_seq), 0) FROM archives)
     OR NOT EXISTS (SELECT 1 FROM meta WHERE key = 'upkeep')
BEGIN SELECT RAISE(ABORT, 'events is append-only: no delete'); END;

CREATE TRIGGER events_in_order BEFORE INSERT ON events
WHEN NEW.seq IS NOT 1 + (SELECT coalesce((SELECT max(seq) FROM events),
                                         (SELECT max(last_seq) FROM archives), 0))
BEGIN SELECT RAISE(ABORT, 'events is append-only: seq must be the next one'); END;

CREATE TRIGGER checkpoints_no_update BEFORE UPDATE ON checkpoints
BEGIN SELECT RAISE(ABORT, 'checkpoints is append-only: no update'); END;

CREATE TRIGGER checkpoints_no_delete BEFORE DELETE ON checkpoints
WHEN NOT EXISTS (SELECT 1 FROM meta WHERE key = 'upkeep')
BEGIN SELECT RAISE(ABORT, 'checkpoints is append-only: no delete'); END;

CREATE TRIGGER checkpoints_stand_on_an_event BEFORE INSERT ON checkpoints
WHEN EXISTS (SELECT 1 FROM checkpoints WHERE seq = NEW.seq)
     OR NOT EXISTS (SELECT 1 FROM events WHERE seq = NEW.seq AND hash = NEW.hash)
BEGIN SELECT RAISE(ABORT, 'checkpoints is append-only: one for an event, with its hash'); END;

CREATE TRIGGER archives_no_update BEFORE UPDATE ON archives
BEGIN SELECT RAISE(ABORT, 'archives is append-only: no update'); END;

CREATE TRIGGER archives_no_delete BEFORE DELETE ON archives
BEGIN SELECT RAISE(ABORT, 'archives is append-only: no delete'); END;

CREATE TRIGGER archives_in_order BEFORE INSERT ON archives
WHEN NEW.first_seq IS NOT (SELECT coalesce(max(last_seq), 0) + 1 FROM archives)
     OR NOT EXISTS (SELECT 1 FROM checkpoints WHERE seq = NEW.last_seq AND hash = NEW.last_hash)
BEGIN SELECT RAISE(ABORT, 'archives is append-only: the next events, up to a checkpoint'); END;
"""

_TIME: Final = "strftime('%Y-%m-%dT%H:%M:%S', {0} / 1000000000, 'unixepoch') || 'Z'"


def _state(place: str) -> str:
    """Return the SQL of the state before or after, said or given by the trigger."""
    cases = " ".join(f"WHEN '{trigger}' THEN '{state}'" for trigger, state in GIVEN[place].items())
    told = f"json_extract(data, '$.{place}')"
    return f"coalesce({told}, CASE json_extract(data, '$.trigger') {cases} END)"


_VIEWS: Final = {
    "disk_now": f"""
        SELECT name, generation, state, desired, driver, device, base, attempts,
               {_TIME.format("updated_at")} AS updated,
               json_extract(record, '$.failure.message') AS failure,
               json_extract(record, '$.fault.message') AS fault,
               json_extract(record, '$.frozen.message') AS frozen,
               json_extract(record, '$.cow.size') AS cow_bytes
        FROM disks ORDER BY name""",  # noqa: S608 - constants
    "disk_history": f"""
        SELECT seq, {_TIME.format("at")} AS time, disk, generation, type,
               json_extract(data, '$.trigger') AS trigger,
               {_state("source")} AS source,
               {_state("target")} AS target,
               coalesce(json_extract(data, '$.message'), reason) AS message, actor
        FROM events ORDER BY seq""",  # noqa: S608 - constants
    "transition_outcomes": f"""
        SELECT seq, {_TIME.format("at")} AS time, disk, generation,
               json_extract(data, '$.trigger') AS trigger,
               {_state("target")} AS target,
               CASE type WHEN 'transition.completed' THEN 'completed'
                         ELSE json_extract(data, '$.consequence') END AS outcome,
               json_extract(data, '$.duration_ns') / 1e6 AS duration_ms,
               json_extract(data, '$.message') AS message
        FROM events WHERE type IN ('transition.completed', 'transition.failed') ORDER BY seq""",  # noqa: S608 - constants
}


def _create(database: Database) -> None:
    database.table("events").create(
        EVENT_COLUMNS,
        pk="seq",
        not_null=set(EVENT_COLUMNS) - {"seq"},
        strict=True,
    )
    events = database.table("events")
    events.create_index(["disk", "generation", "version"], unique=True)
    events.create_index(["type", "seq"])
    events.create_index(["at"])
    database.table("disks").create(
        DISK_COLUMNS,
        pk="name",
        not_null=set(DISK_COLUMNS) - {"name", "next_retry_at"},
        strict=True,
    )
    import secrets  # noqa: PLC0415 - only whoever makes a log needs chance

    database.table("meta").create({"key": str, "value": str}, pk="key", strict=True)
    database.table("meta").insert({"key": "root_id", "value": secrets.token_hex(8)})
    for statement in _statements(_GUARDS):
        database.execute(statement)


def _make_views(database: Database) -> None:
    """Make all views as they are now; a view holds no data, so the old one is nothing to keep."""
    for name, query in _VIEWS.items():
        database.execute(f"DROP VIEW IF EXISTS {name}")
        database.create_view(name, query)


def _index_disks(database: Database) -> None:
    """Find the disks that are not removed, and a disk by its id, however many are removed."""
    database.execute(f"CREATE INDEX disks_in_use ON disks (name, seq) WHERE {IN_USE}")
    database.execute("CREATE INDEX disks_id ON disks (id)")


def _prepare_questions(database: Database) -> None:
    """Make what a question by correlation id or by time needs to be quick at any size."""
    for statement in (_REQUESTS_INDEX, _CLOCK_STEPS, PAST_CLOCK_STEPS, _NOTE_CLOCK_STEP):
        database.execute(statement)


def _add_checkpoints(database: Database) -> None:
    """Make the tables that bound a start and let the oldest events go, and their guards."""
    for name, columns in (("checkpoints", CHECKPOINT_COLUMNS), ("archives", ARCHIVE_COLUMNS)):
        key = next(iter(columns))
        database.table(name).create(columns, pk=key, not_null=set(columns) - {key}, strict=True)
    for name in ("events_no_delete", "events_in_order"):
        database.execute(f"DROP TRIGGER {name}")
    for statement in _statements(_GUARDS_OF_CHECKPOINTS):
        database.execute(statement)


def _shrink_indexes(database: Database) -> None:
    """Drop the index of times, which `clock_steps` serves, and `seq` from that of types.

    The rowid is the end of each entry of an index anyway, and it is `seq`.
    """
    database.execute("DROP INDEX idx_events_at")
    database.execute("DROP INDEX idx_events_type_seq")
    database.table("events").create_index(["type"])


def _index_rare_types(database: Database) -> None:
    """Keep the index of types for those that are worth it."""
    database.execute("DROP INDEX idx_events_type")
    database.execute(f"CREATE INDEX events_rare_types ON events (type) WHERE {IS_RARE}")


def _add_bases(database: Database) -> None:
    """Make the table of the registered bases; of logs until then there are none."""
    columns = {"name": str, "path": str, "sha256": str, "record": str}
    database.table("bases").create(
        columns, pk="name", not_null=set(columns) - {"name"}, strict=True
    )


MIGRATIONS: Final[tuple[Callable[[Database], None], ...]] = (
    _create,
    _make_views,  # version 1 had views without `frozen` and `cow_bytes`
    _index_disks,
    _prepare_questions,
    _add_checkpoints,
    _shrink_indexes,
    _index_rare_types,
    _make_views,  # version 7 had views that read `source` and `target` from every event
    _add_bases,
)
"""Step n makes schema version n + 1 of version n. A version that changes a view is one more
`_make_views` at the end."""

SCHEMA_VERSION: Final = len(MIGRATIONS)


def version_of(connection: sqlite3.Connection) -> int:
    """Return the schema version of a file; 0 for a new one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Tell whether a log has a table; one of an older schema that is only read may not have it."""
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(query, (name,)).fetchone() is not None


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a file to the newest schema version; all steps in one transaction.

    Safe against a second process that does the same: the version is read again under the write
    lock. Idempotent.
    """
    from sqlite_utils import Database  # noqa: PLC0415 - a slow import that most commands do not need

    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in MIGRATIONS[version_of(connection) :]:
            # `execute_plugins=False`: what is installed beside byre must not touch the log.
            step(Database(connection, execute_plugins=False))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextlib.contextmanager
def unguarded(connection: sqlite3.Connection) -> Iterator[None]:
    """Take the guards away for a part of this transaction: for a log that begins in the middle."""
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    guards = connection.execute(query).fetchall()
    for name, _ in guards:
        connection.execute(f"DROP TRIGGER {name}")
    yield
    for _, statement in guards:
        connection.execute(statement)


@contextlib.contextmanager
def upkeep(connection: sqlite3.Connection) -> Iterator[None]:
    """Say, in this transaction, that what the guards let go is deleted on purpose."""
    connection.execute("INSERT INTO meta (key, value) VALUES (?, '')", (UPKEEP,))
    yield
    connection.execute("DELETE FROM meta WHERE key = ?", (UPKEEP,))


def _statements(script: str) -> list[str]:
    """Split a script of triggers; `executescript` would end our transaction."""
    return [part.strip() + " END" for part in script.split("END;") if part.strip()]

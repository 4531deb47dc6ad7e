"""Durable appends by many writers at once, against SQLite alone with the same batches and rows.

The bare loop has two plain tables with nothing but a primary key: no hash, no projection, no
triggers and no index; each batch is one transaction, synced as the log's are. It begins with the
rows that byre has made, so that making them is byre's cost and not the loop's.
May be imported by the package only.
"""

from __future__ import annotations

import functools
import secrets
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from reconciler.bench.plan import Plan
from reconciler.bench.results import Measured, Series, quantile
from reconciler.bench.stopwatch import timed_s
from reconciler.bench.yard import Yard
from statemachine import payloads
from statemachine.commits import Commit
from statemachine.eventlog import EventLog
from statemachine.events import NewEvent
from statemachine.fileidentity import FileIdentity
from statemachine.machine import State, Trigger
from statemachine.names import LOG_NAME
from statemachine.schema import DISK_COLUMNS, EVENT_COLUMNS
from statemachine.units import Bytes

_ROUNDS: Final = 3
_BYRE: Final = "byre"
_BARE: Final = "bare sqlite3"
_ACTIONS: Final = (
    "check that /srv/images/base.img is what it was when it was declared",
    "make the sparse file /var/lib/byre/cow/0123456789abcdef0123456789abcdef-1.cow",
    "attach the shared read-only loop of /srv/images/base.img",
    "attach a loop to /var/lib/byre/cow/0123456789abcdef0123456789abcdef-1.cow",
)


def measure(yard: Yard, plan: Plan) -> Mapping[str, Measured]:
    """Measure both in turn."""
    rounds = []
    for number in range(_ROUNDS):
        plan.tell(f"{plan.writers} writers, round {number + 1}")
        rounds.append(_round(yard.folder / f"appends-{number}", plan))
    rates = {name: [each.rates[name] for each in rounds] for name in (_BYRE, _BARE)}
    share = quantile(rates[_BYRE], 50) / quantile(rates[_BARE], 50) * 100
    series = [
        Series(name=name, unit="events/s", samples=tuple(round(each, 1) for each in found))
        for name, found in rates.items()
    ]
    mean = _ROUNDS * plan.writers * plan.appends / sum(each.commits for each in rounds)
    note = f"{plan.writers} writers, {mean:.1f} events in a commit"
    return {"appends": Measured(values={"share": share}, series=tuple(series), notes=(note,))}


@attrs.frozen(kw_only=True)
class _Round:
    """What one round gave: events a second of each, and the commits that byre made."""

    rates: Mapping[str, float]
    commits: int


def _round(folder: Path, plan: Plan) -> _Round:
    batches: list[list[str]] = []
    with EventLog(folder / LOG_NAME, boot_id=secrets.token_hex(16)) as log:
        first = _declare(log, plan.writers)
        log.on_commit = functools.partial(_note, batches)
        took_s = timed_s(functools.partial(_append_all, log, plan))
        rows = [event.columns() for event in log.events(after=first)]
    disks = _disk_rows(folder / LOG_NAME)
    connection = _bare(folder / "bare.db")
    try:
        bare_s = timed_s(functools.partial(_write, connection, batches, rows, disks))
    finally:
        connection.close()
    return _Round(
        rates={_BYRE: len(rows) / took_s, _BARE: len(rows) / bare_s}, commits=len(batches)
    )


def _note(batches: list[list[str]], commit: Commit) -> None:
    """Keep which disks a commit moved: each of its events is of another disk here."""
    batches.append([record.name for record in commit.moved])


def _declare(log: EventLog, disks: int) -> int:
    """Declare a disk for each writer; returns the newest seq."""
    pin = FileIdentity(device=1, inode=2, size=Bytes(1 << 26), mtime_ns=3)
    events = []
    for number in range(disks):
        spec = {"name": _name(number), "base": "/srv/images/base.img", "state": "live"}
        declared = payloads.DiskDeclared(
            id=secrets.token_hex(16), spec=spec, device_name=f"byre-{_name(number)}", base=pin
        )
        events.append(_event(number, declared, generation=1))
    return log.append(events)[-1].seq


def _append_all(log: EventLog, plan: Plan) -> None:
    """Let every writer append its events, one commit after the other each, all at once."""
    writers = [
        threading.Thread(target=_append, args=(log, number, plan.appends))
        for number in range(plan.writers)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()


def _append(log: EventLog, number: int, count: int) -> None:
    started = payloads.TransitionStarted(
        trigger=Trigger.ATTACH,
        source=State.ABSENT,
        target=State.ATTACHED,
        attempt=1,
        driver="dm-snapshot",
        actions=_ACTIONS,
    )
    for _ in range(count):
        log.append([_event(number, started)])


def _event(number: int, payload: object, *, generation: int = 0) -> NewEvent:
    return NewEvent(
        disk=_name(number),
        type=payloads.type_of(payload),
        data=payloads.to_data(payload),
        actor="bench",
        generation=generation,
        correlation_id="0" * 32,
    )


def _name(number: int) -> str:
    return f"sb-{number}"


# --- the bare loop -------------------------------------------------------------------------------


def _disk_rows(path: Path) -> dict[str, list[object]]:
    """Return the projection's rows, by name."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        query = f"SELECT name, {', '.join(DISK_COLUMNS)} FROM disks"  # noqa: S608 - constants
        return {name: row for name, *row in connection.execute(query)}
    finally:
        connection.close()


def _bare(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    for table, columns, key in (("events", EVENT_COLUMNS, "seq"), ("disks", DISK_COLUMNS, "name")):
        connection.execute(
            f"CREATE TABLE {table} ({', '.join(columns)}, PRIMARY KEY ({key})) WITHOUT ROWID"
        )
    return connection


def _write(
    connection: sqlite3.Connection,
    batches: Sequence[Sequence[str]],
    rows: Sequence[tuple[object, ...]],
    disks: Mapping[str, list[object]],
) -> None:
    """Write the same rows in the same transactions."""
    events = _insert("events", len(EVENT_COLUMNS))
    records = _insert("disks", len(DISK_COLUMNS))
    done = 0
    for names in batches:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(events, rows[done : done + len(names)])
        connection.executemany(records, [disks[name] for name in names])
        connection.execute("COMMIT")
        done += len(names)


def _insert(table: str, columns: int) -> str:
    places = ", ".join("?" * columns)
    return f"INSERT OR REPLACE INTO {table} VALUES ({places})"  # noqa: S608 - constants

"""A log of many events: how fast it answers, starts, is replayed and proved, and what it takes.

The log is made by `story`, in the yard. What takes long is measured as a ratio to bare SQLite on
the same rows in the same run; single questions are in ms.
May be imported by the package only.
"""

from __future__ import annotations

import functools
import random
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from reconciler.bench import story
from reconciler.bench.plan import Plan
from reconciler.bench.results import Measured, Series, quantile
from reconciler.bench.stopwatch import timed_s
from reconciler.bench.yard import Yard
from statemachine import archive, history, logsize, timetravel
from statemachine.archive import Span
from statemachine.eventlog import EventLog
from statemachine.names import LOG_NAME
from statemachine.proof import BEGINNING, followed
from statemachine.roster import Roster

DISKS: Final = 1_000
FEW_EVENTS: Final = 1_000
_QUESTIONS: Final = 200
_MOMENTS: Final = 20
_STARTS: Final = 5
_REPLAYED: Final = 500_000
"""How many events a replay is measured on: the rate does not depend on the length."""
_PAGE: Final = 100
_SEED: Final = 20261121


def measure(yard: Yard, plan: Plan) -> Mapping[str, Measured]:
    """Make a long log and a short one, and measure."""
    plan.tell(f"a log of {plan.events} events, {DISKS} disks at a time")
    long = _made(yard.folder / "long", plan.events)
    short = _made(yard.folder / "short", FEW_EVENTS)
    values: dict[str, float] = {}
    series: list[Series] = []
    plan.tell("questions")
    with EventLog(long, read_only=True) as log:
        asked = _questions(log, long)
        started = {"start": _starts(long), "start, short log": _starts(short)}
        plan.tell("replays")
        rates = _rates(log, long, min(plan.events, _REPLAYED))
        size = logsize.measure(log)
        packed = _archive_bytes(log, yard.folder / "archive", min(plan.events, _REPLAYED))
    for name, samples in (asked | started).items():
        told = tuple(round(each * 1e3, 3) for each in samples)
        series.append(Series(name=name, unit="ms", samples=told))
    values["last"] = quantile(asked["last 100 of a disk"], 99) * 1e3
    values["bare"] = quantile(asked["last 100 of a disk"], 50) / quantile(asked["bare query"], 50)
    values["page"] = quantile(asked["by time and type, a page"], 99) * 1e3
    values["moment"] = quantile(asked["all disks at a moment"], 50) * 1e3
    values["start"] = min(started["start"]) / min(started["start, short log"])
    values["replay"] = rates["replay"] / rates["bare"]
    values["chain"] = rates["replay and chain"] / rates["bare"]
    values["size"] = size.bytes_per_event
    values["archive"] = packed
    series += [
        Series(name=name, unit="events/s", samples=(round(rate),)) for name, rate in rates.items()
    ]
    notes = (f"{size.events} events, {size.disks} disks, {size.removed} of them removed",)
    return {"log": Measured(values=values, series=tuple(series), notes=notes)}


def _made(folder: Path, events: int) -> Path:
    path = folder / LOG_NAME
    with EventLog(path) as log:
        story.write(log, events=events, disks=DISKS)
        log.checkpoint()
    return path


def _questions(log: EventLog, path: Path) -> dict[str, list[float]]:
    """Ask what people ask, at random places of the log."""
    dice = random.Random(_SEED)  # noqa: S311 - places to look at
    newest = log.last_seq()
    places = [log.select("WHERE seq = ?", 1 + dice.randrange(newest))[0] for _ in range(_QUESTIONS)]
    found: dict[str, list[float]] = {}
    bare = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    where = "WHERE disk = ? ORDER BY generation DESC, version DESC LIMIT 100"
    query = f"SELECT * FROM events {where}"  # noqa: S608 - a constant
    ask_bare = functools.partial(_all, bare, query)
    try:
        for event in places:
            asked = history.Question(since=event.at, type="transition.failed")
            page = functools.partial(history.ask, log, asked, limit=_PAGE)
            _note(found, "last 100 of a disk", functools.partial(log.select, where, event.disk))
            _note(found, "bare query", functools.partial(ask_bare, event.disk))
            _note(found, "by time and type, a page", page)
    finally:
        bare.close()
    for event in places[:_MOMENTS]:
        _note(found, "all disks at a moment", functools.partial(_moment, log, event.at))
    return found


def _all(connection: sqlite3.Connection, query: str, value: str) -> list[object]:
    return connection.execute(query, (value,)).fetchall()


def _moment(log: EventLog, at: int) -> object:
    return timetravel.moment(log, timetravel.seq_at(log, at))


def _note(found: dict[str, list[float]], name: str, work: Callable[[], object]) -> None:
    found.setdefault(name, []).append(timed_s(work))


def _starts(path: Path) -> list[float]:
    """Do what a reconciler does with the log before its first look at the kernel."""

    def start() -> None:
        with EventLog(path) as log:
            history.prove(log)
            log.in_use()

    return [timed_s(start) for _ in range(_STARTS)]


def _rates(log: EventLog, path: Path, events: int) -> dict[str, float]:
    """Return events a second: bare rows, a replay, and a replay that checks the chain."""
    bare = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        query = f"SELECT * FROM events WHERE seq <= {events:d}"  # noqa: S608 - a number
        rows = bare.execute(query)
        bare_s = timed_s(lambda: _drain(rows))
    finally:
        bare.close()
    return {
        "bare": events / bare_s,
        "replay": events / timed_s(lambda: _replay(log, events, is_checked=False)),
        "replay and chain": events / timed_s(lambda: _replay(log, events, is_checked=True)),
    }


def _drain(rows: Iterator[object]) -> None:
    for _ in rows:
        pass


def _replay(log: EventLog, events: int, *, is_checked: bool) -> None:
    with log.frozen() as connection, Roster() as roster:
        found = timetravel.events_between(connection, 0, events)
        roster.replay(followed(found, BEGINNING) if is_checked else found)


def _archive_bytes(log: EventLog, path: Path, events: int) -> float:
    """Return what an event takes in an archive."""
    first, last = log.select("WHERE seq = 1")[0], log.select("WHERE seq = ?", events)[0]
    span = Span(
        first_seq=1, prev_hash=BEGINNING.hash, last_seq=events, last_hash=last.hash,
        first_at=first.at, last_at=last.at,
    )  # fmt: skip
    with log.frozen() as connection:
        found = timetravel.events_between(connection, 0, events)
        archive.write(path, span, root_id=log.root_id, events=found, kept=(), begin=())
    return path.stat().st_size / events

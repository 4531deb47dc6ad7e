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
from reconciler.bench.memory import more_mb
from reconciler.bench.plan import Plan
from reconciler.bench.results import Measured, Series, quantile
from reconciler.bench.stopwatch import cpu_s, timed_s
from reconciler.bench.yard import Yard
from statemachine import archive, checkpoints, history, logsize, newlog, timetravel
from statemachine.archive import Span
from statemachine.eventlog import EventLog
from statemachine.logreader import LogReader
from statemachine.names import LOG_NAME
from statemachine.newlog import Beginning
from statemachine.proof import BEGINNING, followed
from statemachine.record import to_text
from statemachine.roster import Roster

DISKS: Final = 1_000
FEW_EVENTS: Final = 1_000
_READ_WHOLE: Final = 200_000
"""How many events are read by the commands whose memory is measured: one that kept a kilobyte of
each would take twice what it may."""
_QUESTIONS: Final = 200
_MOMENTS: Final = 20
_STARTS: Final = 10
_REPLAYED: Final = 500_000
"""How many events a replay is measured on: the rate does not depend on the length."""
_PAGE: Final = 100
_SEED: Final = 20261121


def measure(yard: Yard, plan: Plan) -> Mapping[str, Measured]:
    """Make a long log and a short one, and measure."""
    plan.tell(f"a log of {plan.events} events, {DISKS} disks at a time")
    long = _made(yard.folder / "long", plan.events)
    other = _made(yard.folder / "other", min(plan.events, _READ_WHOLE))
    values: dict[str, float] = {}
    series: list[Series] = []
    plan.tell("memory")
    memory = more_mb(other.parent, yard.folder / "peak")
    plan.tell("questions")
    with LogReader(long) as log:
        short = _shortened(log, yard.folder / "short" / LOG_NAME)
        asked = _questions(log, long)
        started = _started({"start": long, "start, short log": short})
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
    values["memory"] = max(memory.values())
    series += [
        Series(name=name, unit="events/s", samples=(round(rate),)) for name, rate in rates.items()
    ]
    series += [Series(name=name, unit="MB", samples=(more,)) for name, more in memory.items()]
    notes = (f"{size.events} events, {size.disks} disks, {size.removed} of them removed",)
    return {"log": Measured(values=values, series=tuple(series), notes=notes)}


def _made(folder: Path, events: int) -> Path:
    path = folder / LOG_NAME
    with EventLog(path) as log:
        story.write(log, events=events, disks=DISKS)
        log.checkpoint()
    return path


def _shortened(log: LogReader, path: Path) -> Path:
    """Make a log of the same disks that has a thousand events, as if the others were archived."""
    with log.frozen() as connection:
        last = timetravel.newest_seq(connection)
        since = max(last - FEW_EVENTS, 1)
        first, before = log.select("WHERE seq IN (1, ?) ORDER BY seq", since)
        with timetravel.roster_at(connection, since) as roster:
            base = checkpoints.make(
                seq=since,
                hash_=before.hash,
                earliest=first.at,
                living=(to_text(record) for _, record in sorted(roster.living.items())),
                gone=roster.removed_texts(),
            )
        gone = (since, before.hash, 1, first.prev_hash, first.at, before.at, "", "", before.at)
        left = timetravel.events_between(connection, since)
        newlog.write(path, root_id="", begin=Beginning(base, [gone]), events=left)
    with EventLog(path) as short:
        short.checkpoint()
    return path


def _questions(log: LogReader, path: Path) -> dict[str, list[float]]:
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


def _moment(log: LogReader, at: int) -> object:
    return timetravel.moment(log, timetravel.seq_at(log, at))


def _note(found: dict[str, list[float]], name: str, work: Callable[[], object]) -> None:
    found.setdefault(name, []).append(timed_s(work))


def _started(logs: Mapping[str, Path]) -> dict[str, list[float]]:
    """Do, in turn, what a reconciler does with a log before its first look; in s of CPU time."""
    found: dict[str, list[float]] = {}
    for _ in range(_STARTS):
        for name, path in logs.items():
            found.setdefault(name, []).append(cpu_s(functools.partial(_start, path)))
    return found


def _start(path: Path) -> None:
    with EventLog(path) as log:
        history.prove(log)
        log.in_use()


def _rates(log: LogReader, path: Path, events: int) -> dict[str, float]:
    """Return events a second of CPU time: bare rows, a replay, and one that checks the chain.

    Each is the work of one thread on a file that was read before. The best of three of each counts.
    """
    bare = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    query = f"SELECT * FROM events WHERE seq <= {events:d}"  # noqa: S608 - a number
    ways: dict[str, Callable[[], None]] = {
        "bare": lambda: _drain(bare.execute(query)),
        "replay": lambda: _replay(log, events, is_checked=False),
        "replay and chain": lambda: _replay(log, events, is_checked=True),
    }
    try:
        return {name: events / min(cpu_s(work) for _ in range(3)) for name, work in ways.items()}
    finally:
        bare.close()


def _drain(rows: Iterator[object]) -> None:
    for _ in rows:
        pass


def _replay(log: LogReader, events: int, *, is_checked: bool) -> None:
    with log.frozen() as connection, Roster() as roster:
        found = timetravel.events_between(connection, 0, events)
        roster.replay(followed(found, BEGINNING) if is_checked else found)


def _archive_bytes(log: LogReader, path: Path, events: int) -> float:
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

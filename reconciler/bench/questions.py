"""Two questions to a large log: one disk's last events, and a first page by time and type.

For a log that is there already, however it was made. Each disk's question is asked of SQLite alone,
too, with the same index, the same rows and in the same order; both after a look that reads the
pages, so that the cost of the question is measured and not that of the disk.
May be imported by the package and tests.
"""

from __future__ import annotations

import contextlib
import functools
import random
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from reconciler.bench.results import Measured, Series, quantile
from reconciler.bench.stopwatch import timed_s
from statemachine.batch import SELECT_EVENTS
from statemachine.eventlog import EventLog
from statemachine.history import ask
from statemachine.questions import Question

PAGE: Final = 100
_SPANS_NS: Final = tuple(10**9 * seconds for seconds in (60, 3600, 86_400, 30 * 86_400))
_BARE: Final = (
    f"{SELECT_EVENTS} WHERE disk = ? ORDER BY disk DESC, generation DESC, version DESC LIMIT {PAGE}"
)


def measure_last_events(path: Path, *, rounds: int, seed: int = 1) -> Measured:
    """Ask for the last events of one disk after the other.

    Args:
        path: the log.
        rounds: how many disks, each at random.
        seed: of the choice.

    Returns:
        `p99` in ms, and `bare`: how many times the median of SQLite alone.
    """
    draw = random.Random(seed)  # noqa: S311 - which disks to ask for is no secret
    with EventLog(path, read_only=True) as log, contextlib.closing(_bare(path)) as bare:
        names = [str(name) for (name,) in log.rows("SELECT name FROM disks")]
        chosen = draw.choices(names, k=rounds)
        ours, theirs = [], []
        for name in chosen:
            ask_bare = functools.partial(_ask_bare, bare, name)
            ask_us = functools.partial(ask, log, Question(disk=name, newest_first=True), limit=PAGE)
            assert [event.columns() for event in ask_us()] == ask_bare(), "the same question"
            ours.append(timed_s(ask_us) * 1000)
            theirs.append(timed_s(ask_bare) * 1000)
    values = {"p99": quantile(ours, 99), "bare": quantile(ours, 50) / quantile(theirs, 50)}
    return _measured(values, {"byre": ours, "bare sqlite3": theirs})


def measure_first_pages(path: Path, *, rounds: int, seed: int = 1) -> Measured:
    """Ask for the first page of a type, or of a family of types, in a time, from either end.

    Returns:
        `p99` in ms.
    """
    draw = random.Random(seed)  # noqa: S311 - what to ask for is no secret
    with EventLog(path, read_only=True) as log:
        types = [str(each) for (each,) in log.rows("SELECT DISTINCT type FROM events")]
        types += sorted({each.split(".")[0] for each in types})
        newest = log.last_seq()
        taken = []
        for _ in range(rounds):
            [(at,)] = log.rows("SELECT at FROM events WHERE seq = ?", draw.randint(1, newest))
            question = Question(
                type=draw.choice(types),
                since=at,
                until=at + draw.choice(_SPANS_NS),
                newest_first=draw.random() < 0.5,  # noqa: PLR2004 - one of two
            )
            page = functools.partial(ask, log, question, limit=PAGE)
            page()
            taken.append(timed_s(page) * 1000)
    return _measured({"p99": quantile(taken, 99)}, {"byre": taken})


def _measured(values: Mapping[str, float], samples: Mapping[str, Sequence[float]]) -> Measured:
    series = tuple(
        Series(name=name, unit="ms", samples=tuple(round(each, 4) for each in found))
        for name, found in samples.items()
    )
    return Measured(values=values, series=series)


def _bare(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _ask_bare(connection: sqlite3.Connection, name: str) -> list[tuple[object, ...]]:
    return connection.execute(_BARE, (name,)).fetchall()

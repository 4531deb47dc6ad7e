"""The events that a search finds by its indexes are those that fit the question, in order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statemachine import payloads, search
from statemachine.eventlog import EventLog
from statemachine.events import Event, NewEvent
from statemachine.history import ask
from statemachine.machine import State, Trigger
from statemachine.names import LOG_NAME
from statemachine.questions import OUTCOMES, Question, fits
from statemachine.schema import SELECT_EVENTS
from statemachine.seqtimes import seq_range
from tests.unit.events_made import declaration, host_event, of_disk

DISKS: Final = ("sb-0", "sb-1", "sb-2")
IDS: Final = ("0" * 32, "0" * 8 + "1" * 24, "abcdef01" * 4)
START: Final = 1_700_000_000_000_000_000
EVENTS: Final = 300
TEXTS: Final = ("", "Idle", 'said "so"', "größer")
MOVED: Final[dict[str, Any]] = {
    "trigger": Trigger.PAUSE,
    "source": State.SNAPSHOTTED,
    "target": State.PAUSED,
}


class Clock:
    """A clock that is set back now and then."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def made(draw: random.Random, disk: str) -> object:
    """Return a payload; what it says need not make sense, as only questions are asked."""
    name = draw.choice(["started", "completed", "failed", "drift", "fault", "again"])
    if name == "started":
        return payloads.TransitionStarted(**MOVED, attempt=1, driver="dm-snapshot")
    if name == "completed":
        return payloads.TransitionCompleted(**MOVED, duration_ns=draw.randrange(10**9))
    if name == "failed":
        return payloads.TransitionFailed(
            **MOVED,
            consequence=draw.choice(["transient", "blocked", "permanent"]),
            kind="busy",
            message=f"{disk} is in use",
            attempt=1,
        )
    if name == "drift":
        moved = {**MOVED, "trigger": Trigger.LOSE}
        return payloads.DriftDetected(**moved, differences=('no "device"',))
    if name == "fault":
        return payloads.DiskFaulted(kind="missing", message="The CoW file is MISSING")
    by = payloads.Requester(uid=draw.choice([0, 1000]), user="tester", pid=1, command="byre")
    return payloads.DiskRecovered(was="faulted", by=by, on_behalf_of=draw.choice(["", "tenant 7"]))


def story(draw: random.Random) -> Iterator[NewEvent]:
    """Yield events of which every correlation id begins with one that may begin a story."""
    current = dict.fromkeys(DISKS, IDS[0])
    for disk in DISKS:
        yield attrs.evolve(declaration(disk), correlation_id=IDS[0])
    while True:
        disk, actor = draw.choice(DISKS), draw.choice(["tester", "reconciler"])
        payload = made(draw, disk)
        late = isinstance(payload, payloads.TransitionCompleted | payloads.TransitionFailed)
        if not late and not isinstance(payload, payloads.TransitionStarted):
            current[disk] = draw.choice(IDS)
        event = of_disk(disk, payload)
        reason = draw.choice(TEXTS)
        yield attrs.evolve(event, correlation_id=current[disk], actor=actor, reason=reason)
        if draw.random() < 0.05:
            yield attrs.evolve(host_event(), correlation_id="f" * 32)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventLog]:
    draw, clock = random.Random(7), Clock()  # noqa: S311 - a made-up history
    path = tmp_path_factory.mktemp("search") / LOG_NAME
    with EventLog(path, clock_ns=clock) as opened:
        for event in itertools.islice(story(draw), EVENTS):
            clock.now += draw.choice([0, 1, 10**9, 10**9, 10**9, -(10**10)])
            opened.append([event])
        yield opened


seqs = st.integers(0, EVENTS + 3)
times = st.integers(START - 10**10, START + 10**11)
questions = st.builds(
    Question,
    disk=st.sampled_from([None, None, *DISKS, "@host", "nobody"]),
    generation=st.sampled_from([None, None, 0, 1, 2]),
    since=st.none() | times,
    until=st.none() | times,
    type=st.sampled_from([None, None, "transition", "transition.failed", "disk", "drift", "trans"]),
    trigger=st.sampled_from([None, None, "pause", "lose", "attach"]),
    actor=st.sampled_from([None, None, "tester", "reconciler", "uid:1000", "uid:x"]),
    on_behalf_of=st.sampled_from([None, None, None, "tenant 7"]),
    correlation=st.sampled_from(
        [None, None, *IDS, IDS[0][:4], IDS[0][:8], IDS[1][:12], IDS[2][:5], "f" * 8, "12345678"]
    ),
    outcome=st.sampled_from([None, None, *OUTCOMES]),
    text=st.sampled_from([None, None, None, "missing", 'NO "D', "idle", "GRÖSSER", "ö", ""]),
    after=st.just(0) | seqs,
    before=st.none() | seqs,
    newest_first=st.booleans(),
)


def expected(log: EventLog, question: Question) -> list[int]:
    found = [event.seq for event in log.events() if fits(question, event)]
    return found[::-1] if question.newest_first else found


@settings(deadline=None, max_examples=400)
@given(question=questions, page=st.sampled_from([1, 3, 1000]), stretch=st.sampled_from([7, 10**5]))
def test_a_search_finds_what_fits(
    log: EventLog, question: Question, page: int, stretch: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "STRETCH_EVENTS", stretch)
        found = [event.seq for event in search.search(log, question, page=page)]
    assert expected(log, question) == found


@settings(deadline=None, max_examples=100)
@given(question=questions, count=st.integers(1, 40))
def test_pages_by_seq_add_up_to_the_whole(log: EventLog, question: Question, count: int) -> None:
    whole = expected(log, question)
    found: list[int] = []
    while page := ask(log, question, limit=count):
        assert len(page) <= count
        found += [event.seq for event in page]
        if question.newest_first:
            question = attrs.evolve(question, before=found[-1])
        else:
            question = attrs.evolve(question, after=found[-1])
    assert whole == found


@given(since=st.none() | times, until=st.none() | times)
def test_a_time_is_the_smallest_range_of_seq(
    log: EventLog, since: int | None, until: int | None
) -> None:
    question = Question(since=since, until=until)
    of_that_time = [event.seq for event in log.events() if fits(question, event)]
    low, high = seq_range(log, since=since, until=until)
    if of_that_time:
        assert (min(of_that_time), max(of_that_time)) == (low, high)
    else:
        assert low > high


def test_the_clock_was_set_back_in_this_log(log: EventLog) -> None:
    steps = [seq for (seq,) in log.rows("SELECT seq FROM clock_steps ORDER BY seq")]
    events = list(log.events())
    pairs = itertools.pairwise(events)
    assert [after.seq for before, after in pairs if after.at < before.at] == steps
    assert len(steps) > 10


# --- by which index -------------------------------------------------------------------------------

DISK_INDEX: Final = "USING INDEX idx_events_disk_generation_version (disk=?"
TYPE_INDEX: Final = "USING INDEX events_rare_types (type=? AND rowid>? AND rowid<?)"
BY_SEQ: Final = "SEARCH events USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
REQUESTS: Final = "USING INDEX events_requests"


class Planned:
    """A log that notes how SQLite goes about each query of a search."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.plans: list[str] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the log has
        return getattr(self._log, name)

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        if "hash" in query or "correlation_id" in query:
            steps = self._log.rows(f"EXPLAIN QUERY PLAN {query}", *values)
            self.plans.append("; ".join(step[3] for step in steps))
        return self._log.rows(query, *values)

    def select(self, where: str, *values: object) -> list[Event]:
        query = f"{SELECT_EVENTS} {where}"
        return [Event(*row) for row in self.rows(query, *values)]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize(
    ("question", "way"),
    [
        (Question(disk="sb-1"), DISK_INDEX),
        (Question(disk="sb-1", generation=1), DISK_INDEX + " AND generation=?"),
        (Question(disk="sb-1", type="transition", since=START, until=START * 2), DISK_INDEX),
        (Question(disk="sb-1", after=20, before=250, actor="tester", text="x"), DISK_INDEX),
        (Question(type="drift.detected"), TYPE_INDEX),
        (Question(type="disk"), BY_SEQ),
        (Question(type="transition"), BY_SEQ),
        (Question(outcome="completed", since=START), BY_SEQ),
        (Question(outcome="failed", since=START), TYPE_INDEX),
        (Question(type="disk.faulted", since=START, until=START * 2), TYPE_INDEX),
        (Question(outcome="blocked", actor="tester"), TYPE_INDEX),
        (Question(type="transition", trigger="pause"), BY_SEQ),
        (Question(since=START, until=START * 2), BY_SEQ),
        (Question(actor="tester", text="x"), BY_SEQ),
        (Question(), BY_SEQ),
        (Question(correlation=IDS[2]), REQUESTS),
        (Question(correlation=IDS[2], type="transition", actor="x"), REQUESTS),
    ],
)
def test_each_question_takes_its_index_and_sorts_nothing(
    log: EventLog, question: Question, way: str, *, newest_first: bool
) -> None:
    planned: Any = Planned(log)
    list(search.search(planned, attrs.evolve(question, newest_first=newest_first), page=50))
    assert way in planned.plans[0]
    assert [plan for plan in planned.plans if "SCAN events" in plan] == []
    if way is not REQUESTS:
        assert [plan for plan in planned.plans if "TEMP B-TREE" in plan] == []


def test_an_archive_is_asked_before_the_live_log(log: EventLog, tmp_path: Path) -> None:
    events = list(log.events())

    class Archive:
        def events(
            self,
            *,
            after: int = 0,
            until: int | None = None,
            earlier_than: int | None = None,
            newest_first: bool = False,
        ) -> Iterator[Event]:
            assert (after, until, earlier_than) == (0, None, None)
            yield from reversed(events[:40]) if newest_first else events[:40]

    class Rest:
        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the log has
            return getattr(live, name)

    with EventLog(tmp_path / LOG_NAME) as live:
        rest: Any = Rest()
        question = Question(disk="sb-1", type="transition")
        wanted = [event.seq for event in events[:40] if fits(question, event)]
        assert wanted == [e.seq for e in search.search(rest, question, archives=[Archive()])]
        backwards = attrs.evolve(question, newest_first=True)
        found = search.search(rest, backwards, archives=[Archive()])
        assert wanted[::-1] == [event.seq for event in found]
        assert wanted

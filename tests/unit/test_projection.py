"""The record is made of the events alone: live and replayed are the same after any history."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import get_args

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine import events, history, payloads, projection
from statemachine.conditions import ConditionType, conditions
from statemachine.errors import LogDamaged
from statemachine.eventlog import EventLog
from statemachine.events import Event
from statemachine.lineage import Point
from statemachine.machine import EDGES, Desired, Edge, State, Trigger
from statemachine.record import from_row, to_row
from statemachine.roster import replay
from tests.unit.events_made import IDENTITY, declaration, host_event, of_disk

NAMES = ("sb-1", "sb-2")
steps = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from(["go", "fail", "crash", "fault", "recover", "wish", "host"]),
        st.integers(0, 9),
    ),
    max_size=30,
)


def started(edge: Edge) -> payloads.TransitionStarted:
    return payloads.TransitionStarted(
        trigger=edge.trigger,
        source=edge.source,
        target=edge.target,
        attempt=1,
        driver="dm-snapshot",
        cow_path="/x.cow",
        made_folders=("/srv/vm",),
    )


def completed(edge: Edge) -> payloads.TransitionCompleted:
    return payloads.TransitionCompleted(
        trigger=edge.trigger,
        source=edge.source,
        target=edge.target,
        cow=IDENTITY,
        device="/dev/mapper/x",
        device_number="253:1",
        base_loop=0,
        cow_loop=1,
    )


def failed(edge: Edge, consequence: str = "transient") -> payloads.TransitionFailed:
    return payloads.TransitionFailed(
        trigger=edge.trigger,
        source=edge.source,
        target=edge.target,
        consequence=consequence,
        kind="ebusy",
        message="busy",
        attempt=3,
        retry_at=99,
    )


def edges_from(state: State) -> list[Edge]:
    return [edge for edge in EDGES if edge.source is state]


def make(log: EventLog, name: str, what: str, number: int) -> None:
    """Append what may legally come next for a disk."""
    record = log.record(name)
    if what == "host":
        log.append([host_event()])
    elif record is None:
        log.append([declaration(name)])
    elif record.state is State.REMOVED:
        first = declaration(name)
        log.append([attrs.evolve(first, expect=record.expect, generation=record.generation + 1)])
    elif what == "wish":
        wish = declaration(name, list(Desired)[number % 4])
        log.append([attrs.evolve(wish, expect=record.expect, generation=record.generation)])
    elif what in ("fault", "recover"):
        payload: object = payloads.DiskRecovered(was="faulted")
        if what == "fault":
            payload = payloads.DiskFaulted(kind="cow-missing", message="gone")
        log.append([of_disk(name, payload, generation=record.generation)])
    else:
        edge = edges_from(record.state)[number % len(edges_from(record.state))]
        made: list[object] = [started(edge)]
        if edge.trigger in (Trigger.LOSE, Trigger.FIND):
            made = [
                payloads.DriftDetected(
                    trigger=edge.trigger, source=edge.source, target=edge.target, differences=("x",)
                )
            ]
        elif what != "crash":
            made.append(completed(edge) if what == "go" else failed(edge))
        log.append([of_disk(name, each, generation=record.generation) for each in made])


@given(steps)
def test_replay_is_the_live_record_after_any_history(
    history_made: list[tuple[str, str, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder, EventLog(Path(folder) / "byre.db") as log:
        for name, what, number in history_made:
            make(log, name, what, number)
        assert {record.name: record for record in log.records()} == replay(log.events())
        assert history.verify(log).events == log.last_seq()
        for record in log.records():
            assert record == from_row(to_row(record))
            assert ConditionType.READY is conditions(record)[0].type


# --- single events --------------------------------------------------------------------------------


@pytest.fixture
def log(folder: Path) -> EventLog:
    made = EventLog(folder / "byre.db", clock_ns=lambda: 7)
    made.append([declaration("sb-1")])
    return made


ATTACH = next(edge for edge in EDGES if edge.trigger is Trigger.ATTACH)


def test_an_intent_stays_open_until_its_outcome(log: EventLog) -> None:
    log.append([of_disk("sb-1", started(ATTACH))])
    record = log.record("sb-1")
    assert record is not None
    assert record.in_flight is not None
    assert (
        record.in_flight.trigger, record.in_flight.seq, record.state
    ) == (Trigger.ATTACH, 2, State.ABSENT)  # fmt: skip
    log.append([of_disk("sb-1", completed(ATTACH))])
    record = log.record("sb-1")
    assert record is not None
    assert (record.in_flight, record.state) == (None, State.ATTACHED)
    log.close()


@pytest.mark.parametrize(
    ("consequence", "kind"),
    [("transient", "Retrying"), ("blocked", "Blocked"), ("permanent", "Stalled")],
)
def test_a_failure_is_a_condition_by_its_consequence(
    log: EventLog, consequence: str, kind: str
) -> None:
    log.append([of_disk("sb-1", failed(ATTACH, consequence))])
    record = log.record("sb-1")
    assert record is not None
    ready, other = conditions(record)
    assert ("Ready", "False", kind, "True", "ebusy") == (
        ready.type, ready.status, other.type, other.status, other.reason
    )  # fmt: skip
    log.append([of_disk("sb-1", payloads.DiskRecovered(was=consequence))])
    record = log.record("sb-1")
    assert record is not None
    assert (record.attempts, record.failure) == (0, None)
    log.close()


def test_a_failure_is_as_old_as_the_first_of_its_trigger_and_kind(log: EventLog) -> None:
    first = failed(ATTACH)
    other_kind = attrs.evolve(first, kind="eio")
    other_trigger = attrs.evolve(other_kind, trigger=Trigger.PAUSE)
    since = []
    for attempt in (first, first, other_kind, other_trigger, other_trigger):
        log.append([of_disk("sb-1", attempt)])
        record = log.record("sb-1")
        assert record is not None
        assert record.failure is not None
        since.append(record.failure.since)
    at = [event.at for event in log.events() if event.type == "transition.failed"]
    assert since == [at[0], at[0], at[2], at[3], at[3]]
    log.close()


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_a_truth_is_true_or_false_and_nothing_like_it(value: object) -> None:
    data = payloads.to_data(failed(ATTACH)) | {"overdue": value}
    with pytest.raises(ValueError, match="expected true or false"):
        payloads.structure(data, payloads.TransitionFailed)


def test_a_wish_forgets_failures_and_keeps_the_state(log: EventLog) -> None:
    log.append([of_disk("sb-1", failed(ATTACH))])
    log.append([attrs.evolve(declaration("sb-1"), expect=(1, 2))])
    record = log.record("sb-1")
    assert record is not None
    assert (
        record.attempts, record.failure, record.state, record.generation
    ) == (0, None, State.ABSENT, 1)  # fmt: skip
    log.close()


# --- versions of payloads -------------------------------------------------------------------------


def event(event_type: str, text: str) -> Event:
    return Event(2, "sb-1", 1, 2, event_type, 8, "tester", "", "", "", text, "", "")


def test_an_old_version_is_read_as_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(events.SCHEMA_VERSIONS, "disk.faulted", 3)
    monkeypatch.setitem(
        events.UPCASTERS, ("disk.faulted", 1), lambda old: {"kind": old["code"], "text": "x"}
    )
    monkeypatch.setitem(
        events.UPCASTERS,
        ("disk.faulted", 2),
        lambda old: {"kind": old["kind"], "message": old["text"]},
    )
    old = event("disk.faulted", '{"code":"cow-missing","v":1}')
    assert payloads.DiskFaulted(kind="cow-missing", message="x") == payloads.read(old)
    assert (old.data["v"], events.is_known(old)) == (3, True)
    assert old.data_text == '{"code":"cow-missing","v":1}', "what was hashed stays"


def test_a_newer_version_and_an_unknown_type_are_kept_and_told(log: EventLog) -> None:
    record = log.record("sb-1")
    for unknown in (
        event("disk.teleported", '{"v":1}'),
        event("disk.thawed", '{"message":"","v":9}'),
    ):
        moved = projection.apply(record, unknown)
        assert record is not None
        assert moved is not None
        assert (moved.state, moved.version, events.is_known(unknown)) == (State.ABSENT, 2, False)
    log.close()


def test_fields_that_a_newer_program_added_are_ignored() -> None:
    newer = event("disk.thawed", '{"message":"m","new":{"a":1},"v":1}')
    assert payloads.DiskThawed(message="m") == payloads.read(newer)


@pytest.mark.parametrize(
    "text",
    ['{"v":1}', '{"message":7,"v":1}', '{"message":null,"v":1}', "[]", "7"],
)
def test_a_payload_that_does_not_fit_is_damage(log: EventLog, text: str) -> None:
    first = next(log.events())
    with pytest.raises((LogDamaged, ValueError)):
        replay(iter([first, event("disk.thawed", text)]))
    log.close()


def test_an_event_of_a_disk_that_was_never_declared_is_damage() -> None:
    with pytest.raises(LogDamaged) as caught:
        replay(iter([event("disk.thawed", '{"message":"m","v":1}')]))
    assert caught.value.seq == 2


@pytest.mark.parametrize("event_type", list(events.EventType))
def test_each_type_has_a_payload_that_survives_the_codec(event_type: events.EventType) -> None:
    assert event_type is payloads.type_of(made_of(payloads.PAYLOADS[event_type]))
    payload = made_of(payloads.PAYLOADS[event_type])
    text = events.encode(event_type, payloads.to_data(payload), actor="")
    assert payload == payloads.read(event(event_type.value, text))


POINT = Point(name="p1", path="/cow", file=IDENTITY, boot_id="b", at=7, how="reflink")


def made_of(kind: type) -> object:
    """Return an instance with something in each field that has no default."""
    values: dict[str, object] = {
        "str": "text", "int": 7, "Trigger": Trigger.ATTACH, "State": State.ABSENT,
        "FileIdentity": IDENTITY, "Point": POINT,
        "dict[str, str]": {"a": "b"}, "tuple[str, ...]": ("a", "b"),
    }  # fmt: skip
    fields = attrs.fields(kind)
    needed = [field for field in fields if field.default is attrs.NOTHING]
    return kind(**{field.name: values[name_of(field.type)] for field in needed})


def name_of(kind: object) -> str:
    """Return a type's name, whether it was resolved already or not."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)

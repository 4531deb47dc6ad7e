"""What is written out to be fast does what the general form does, and refuses what it refuses."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.bench import story
from statemachine import payloads, projection, quickread
from statemachine.eventlog import EventLog
from statemachine.events import Event, canonical_bytes, chain_hash
from statemachine.record import Record
from statemachine.units import Bytes

numbers = st.integers(min_value=0, max_value=2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]))
columns = st.tuples(
    numbers, texts, numbers, numbers, texts, numbers, texts, texts, texts, texts, texts, texts
)
STARTED: dict[str, Any] = {
    "trigger": "restore", "source": "paused", "target": "restored", "attempt": 2, "driver": "clone",
}  # fmt: skip


@given(columns)
def test_the_hash_of_an_event_is_that_of_its_canonical_bytes(row: tuple[Any, ...]) -> None:
    assert chain_hash(row) == hashlib.sha256(canonical_bytes(row)).hexdigest()


@pytest.mark.parametrize("place", range(12))
def test_a_column_of_another_kind_has_no_hash(place: int) -> None:
    row: list[object] = [1, "d", 1, 1, "t", 1, "a", "r", "c", "b", "{}", "p"]
    for wrong in (None, b"x", 1.5, "x" if isinstance(row[place], int) else 7):
        spoiled = (*row[:place], wrong, *row[place + 1 :])
        with pytest.raises((TypeError, ValueError)):
            chain_hash(spoiled)


def test_moving_a_record_gives_what_applying_an_event_gives(folder: Path) -> None:
    with EventLog(folder / "byre.db") as log:
        story.write(log, events=800, disks=4)
        events: list[Event] = list(log.events())
    applied: dict[str, Record | None] = {}
    moved: dict[str, Record | None] = {}
    for event in events:
        before = applied.get(event.disk)
        kept = copy.copy(before)
        applied[event.disk] = projection.apply(before, event)
        assert before == kept
        moved[event.disk] = projection.move(moved.get(event.disk), event)
        assert applied[event.disk] == moved[event.disk]
    assert len(applied) > 4


def test_the_payloads_that_most_events_have_are_read_so() -> None:
    common = (payloads.DiskDeclared, payloads.TransitionStarted, payloads.TransitionCompleted)
    assert [quickread.is_filled(kind) for kind in common] == [True] * 3
    assert not quickread.is_filled(payloads.CowGrown)
    assert not quickread.is_filled(Bytes)


@pytest.mark.parametrize(
    "change",
    [
        {"attempt": "2"}, {"attempt": True}, {"attempt": 2.0}, {"attempt": None}, {"driver": 7},
        {"trigger": "fly"}, {"trigger": ["restore"]}, {"actions": "CheckBase"}, {"actions": [1]},
        {"resumes": "7"},
    ],
)  # fmt: skip
def test_a_field_of_another_kind_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="TransitionStarted"):
        payloads.structure({**STARTED, **change}, payloads.TransitionStarted)


def test_a_field_that_is_missing_is_named_and_one_that_is_unknown_ignored() -> None:
    with pytest.raises(ValueError, match="there is no driver"):
        payloads.structure(
            {name: value for name, value in STARTED.items() if name != "driver"},
            payloads.TransitionStarted,
        )
    read = payloads.structure({**STARTED, "newer": 1}, payloads.TransitionStarted)
    assert payloads.to_data(read) == STARTED
    assert (read.attempt, read.actions, read.resumes) == (2, (), None)

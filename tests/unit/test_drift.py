"""What a difference between record and kernel amounts to: every state against every shape."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from reconciler import drift
from reconciler.drivers.port import Appraisal, Shape
from statemachine.machine import Desired, State, Trigger
from statemachine.record import Record
from tests.unit.builders import Stage

LOSE, FIND, REPAIR = Trigger.LOSE, Trigger.FIND, Trigger.REPAIR
EXPECTED: dict[tuple[State, Shape], Trigger | None] = {
    **{(state, shape): None for state in (State.ABSENT, State.REMOVED) for shape in Shape},
    (State.ATTACHED, Shape.NOTHING): LOSE,
    (State.ATTACHED, Shape.STORED): LOSE,
    (State.ATTACHED, Shape.ATTACHED): None,
    (State.ATTACHED, Shape.LIVE): FIND,
    (State.PAUSED, Shape.NOTHING): None,
    (State.PAUSED, Shape.STORED): None,
    (State.PAUSED, Shape.ATTACHED): None,
    (State.PAUSED, Shape.LIVE): FIND,
    **{
        (state, shape): None if shape is Shape.LIVE else LOSE
        for state in (State.SNAPSHOTTED, State.RESTORED)
        for shape in Shape
    },
}


@pytest.fixture
def record(folder: Path) -> Record:
    stage = Stage(folder)
    made = stage.live()
    stage.close()
    return made


def judged(record: Record, seen: Appraisal) -> Trigger | None:
    found = drift.judge(record, seen)
    return found.trigger if found else None


def test_every_state_and_shape_has_its_judgement(record: Record) -> None:
    found = {
        (state, shape): judged(attrs.evolve(record, state=state), Appraisal(shape=shape))
        for state in State
        for shape in Shape
    }
    assert found == EXPECTED


def test_data_that_the_log_has_not_heard_of_is_found_before_the_first_life_only(
    record: Record,
) -> None:
    seen = Appraisal(shape=Shape.STORED, is_unheard_of=True)
    found = {state for state in State if judged(attrs.evolve(record, state=state), seen) is FIND}
    assert found == {State.ABSENT}


def test_a_defect_is_repaired_only_where_the_disk_is_to_stay(record: Record) -> None:
    seen = Appraisal(shape=Shape.LIVE, defects=("the link is missing",))
    assert judged(record, seen) is REPAIR
    leaving = {**record.spec, "state": Desired.PAUSED.value}
    assert judged(attrs.evolve(record, spec=leaving), seen) is None
    stuck = {**record.spec, "state": Desired.ATTACHED.value}  # no way leads back
    assert judged(attrs.evolve(record, spec=stuck), seen) is REPAIR


def test_a_leftover_is_cleared_only_where_the_disk_is_to_stay_paused(record: Record) -> None:
    seen = Appraisal(shape=Shape.ATTACHED, leftovers=("loop /dev/loop3",))
    paused = attrs.evolve(record, state=State.PAUSED)
    assert judged(paused, seen) is None
    staying = {**record.spec, "state": Desired.PAUSED.value}
    assert judged(attrs.evolve(paused, spec=staying), seen) is REPAIR

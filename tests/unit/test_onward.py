"""A pass goes on after a transition without a second look, and the look is made a little later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from reconciler import recording
from reconciler.onward import LOOK_AFTER_S
from statemachine import payloads
from statemachine.events import NewEvent
from statemachine.foresight import foresee
from statemachine.machine import Desired, State, Trigger
from statemachine.observed import LinkKind
from statemachine.record import Record
from statemachine.spec import DriverChoice
from tests.unit.builders import JAIL, LINK, NODE, Stage


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


CREATED = [
    "disk.declared",
    "transition.started attach",
    "transition.completed attach",
    "transition.started snapshot",
    "transition.completed snapshot",
]


def looks(stage: Stage) -> int:
    """Count the looks that were made: each asks for the free space once."""
    return len([call for call in stage.kernel.trace if call.name == "free_space"])


def test_a_disk_is_made_live_by_one_look_and_three_commits(stage: Stage) -> None:
    stage.declare(link=LINK, jail=JAIL)
    before = stage.byre.log.commits
    stage.once()
    assert (looks(stage), stage.byre.log.commits - before) == (1, 3)
    assert stage.types() == CREATED
    stage.check()


@pytest.mark.parametrize("trigger", [Trigger.PAUSE, Trigger.REMOVE])
def test_what_takes_a_disk_down_looks_once(stage: Stage, trigger: Trigger) -> None:
    stage.live(link=LINK)
    stage.byre.command(["sb-1"], trigger)
    before, commits = looks(stage), stage.byre.log.commits
    stage.once()
    assert (looks(stage) - before, stage.byre.log.commits - commits) == (1, 2)
    stage.check()


def test_what_was_done_is_looked_at_a_moment_later(stage: Stage) -> None:
    stage.declare()
    settled = stage.reconciler.reconcile("sb-1")
    assert (settled.again_s, settled.is_done) == (LOOK_AFTER_S, True)
    assert settled.why == "it is snapshotted, as desired"
    settled = stage.reconciler.reconcile("sb-1")
    assert (settled.again_s, settled.is_done) == (None, False)


def test_the_look_after_finds_what_went_wrong_right_after_the_transition(stage: Stage) -> None:
    stage.declare(link=LINK)
    stage.once()
    stage.kernel.delete(LINK)
    stage.settle()
    assert stage.kernel.read_link(LINK).kind is LinkKind.SYMLINK
    assert "drift.detected repair" in stage.types()
    stage.check()


def test_who_is_not_run_for_good_looks_at_once(stage: Stage) -> None:
    stage.byre.lock.acquire()
    unwatched = stage.byre.reconciler()
    stage.declare()
    assert unwatched.reconcile("sb-1").again_s is None
    assert looks(stage) == len(["before", "after"])


@pytest.mark.parametrize("wanted", [Desired.PAUSED, Desired.REMOVED, Desired.ATTACHED])
def test_what_somebody_asks_for_while_it_is_attached_is_heard_before_it_goes_live(
    stage: Stage, wanted: Desired
) -> None:
    stage.declare()

    def ask(_: object) -> None:
        stage.kernel.faults.clear()
        stage.declare(state=wanted)

    stage.kernel.faults.hook("create_sparse", ask)
    stage.settle()
    types = stage.types()
    assert types[:4] == ["disk.declared", CREATED[1], "disk.declared", CREATED[2]]
    assert wanted is stage.record().desired
    stage.check()
    stage.check_quiet()


def test_a_disk_that_cannot_go_live_fails_as_one_that_was_attached(stage: Stage) -> None:
    stage.kernel.faults.fail("dm_load", 5)
    stage.live()
    record = stage.record()
    assert record.failure is not None
    assert (record.state, record.failure.trigger) == (State.ATTACHED, Trigger.SNAPSHOT)
    stage.byre.retry(["sb-1"])
    stage.settle()
    stage.check()


def test_the_other_driver_goes_on_as_well(stage: Stage) -> None:
    stage.declare(driver=DriverChoice.CLONE, link=LINK)
    stage.once()
    assert looks(stage) == 1
    assert stage.types() == CREATED
    stage.check()


def test_what_is_in_the_way_of_going_live_is_told_after_a_look(stage: Stage) -> None:
    stage.kernel.make_file(NODE, 100)
    stage.declare(jail=JAIL)
    stage.settle()
    failure = stage.record().failure
    assert failure is not None
    stage.kernel.delete(NODE)
    stage.settle()
    stage.check()


def test_a_record_is_foreseen_as_the_log_then_has_it(stage: Stage) -> None:
    record = stage.live()
    new = recovered(record)
    [event] = stage.byre.log.append([new])
    foreseen = foresee(record, new, at=event.at, boot_id=event.boot_id)
    assert attrs.evolve(foreseen, seq=event.seq) == stage.record()


def test_only_the_next_event_of_a_record_is_foreseen(stage: Stage) -> None:
    record = stage.live()
    with pytest.raises(AssertionError, match="next"):
        foresee(record, attrs.evolve(recovered(record), expect=(1, 1)), at=0, boot_id="")


def recovered(record: Record) -> NewEvent:
    return recording.event(record.name, payloads.DiskRecovered(was="faulted"), record)

"""Every call to the kernel fails once, with every kind of errno, in every transition."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from statemachine.errors import ActionError
from statemachine.machine import State, Trigger
from statemachine.plight import Failure
from tests.unit.builders import LINK, Stage
from tests.unit.crashing import SCENARIOS
from tests.unit.crashing import prepared_stage as prepared

CONSEQUENCES = {
    errno.EBUSY: "transient",
    errno.EIO: "permanent",
    errno.ENOSPC: "blocked",
    errno.EACCES: "permanent",
}
WAYS_UP = {"attach": Trigger.ATTACH, "snapshot": Trigger.SNAPSHOT, "restore": Trigger.RESTORE}
WAYS_DOWN = [name for name in SCENARIOS if name.startswith(("pause", "remove"))]


@attrs.frozen
class Spot:
    """The nth call of a name in a run that goes well."""

    call: str
    after: int
    is_change: bool


def spots(folder: Path, name: str, *, has_dm: bool) -> list[Spot]:
    stage = prepared(folder, name, has_dm=has_dm)
    stage.once()
    seen: Counter[str] = Counter()
    found = []
    for call in stage.kernel.faults.trace:
        found.append(Spot(call.name, seen[call.name], call.is_change))
        seen[call.name] += 1
    stage.close()
    return found


def shown(stage: Stage) -> tuple[object, ...]:
    """Return what the simulated host has, but for use: devices, loops, files, link."""
    kernel = stage.kernel
    return (
        kernel.dm_names(),
        {(loop.marker, loop.backing_inode) for loop in kernel.loops()},
        kernel.list_folder(stage.byre.root.cows),
        kernel.read_link(LINK),
        kernel.list_folder(LINK.parent.parent),
        [each for each in kernel.list_folder(Path("/dev/mapper")) if each != "control"],
    )


def failing(folder: Path, name: str, number: int, *, has_dm: bool) -> Iterator[tuple[Stage, Spot]]:
    """Yield a stage for each change that can fail, with the fault in place."""
    for spot in spots(folder, name, has_dm=has_dm):
        if spot.is_change:
            stage = prepared(folder, name, has_dm=has_dm)
            stage.kernel.faults.fail(spot.call, number, after=spot.after)
            yield stage, spot
            stage.close()


def first_failure(stage: Stage) -> Failure | None:
    """Make one pass; the failure may have been recorded, or the change was one of an undo."""
    stage.once()
    return stage.record().failure


@pytest.mark.parametrize("number", CONSEQUENCES, ids=errno.errorcode.get)
@pytest.mark.parametrize("has_dm", [True, False], ids=["dm-snapshot", "clone"])
@pytest.mark.parametrize("name", WAYS_UP)
def test_a_failed_way_up_leaves_nothing_and_is_recorded(
    folder: Path, name: str, number: int, *, has_dm: bool
) -> None:
    for stage, spot in failing(folder, name, number, has_dm=has_dm):
        before = shown(stage)
        failure = first_failure(stage)
        assert failure is not None, spot
        assert (CONSEQUENCES[number], number) == (failure.consequence, failure.errno), spot
        assert (failure.retry_at is None) == (failure.consequence == "permanent"), spot
        assert before == shown(stage), spot
        assert WAYS_UP[name] is failure.trigger
        assert stage.record().attempts == 1
        recover(stage)


@pytest.mark.parametrize("number", CONSEQUENCES, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", [*WAYS_DOWN, "repair"])
def test_a_failed_way_down_is_gone_again_when_the_fault_stops(
    folder: Path, name: str, number: int
) -> None:
    # The clone driver's way down is a part of this one.
    for stage, spot in failing(folder, name, number, has_dm=True):
        failure = first_failure(stage)
        if failure is not None:
            assert CONSEQUENCES[number] == failure.consequence, spot
        recover(stage)


@pytest.mark.parametrize("name", ["attach", "snapshot", "restore", "remove-live", "repair"])
def test_a_question_that_fails_once_costs_one_more_pass(folder: Path, name: str) -> None:
    for spot in spots(folder, name, has_dm=True):
        if spot.is_change:
            continue
        stage = prepared(folder, name, has_dm=True)
        stage.kernel.faults.fail(spot.call, errno.EIO, after=spot.after)
        try:
            stage.once()
        except ActionError:
            assert stage.kernel.faults.trace[-1].error is not None
        recover(stage)
        stage.close()


def recover(stage: Stage) -> None:
    """The fault is over: what waits goes on by itself, what is stalled by a person's word."""
    stage.settle()
    failure = stage.record().failure
    if failure is not None:
        assert failure.consequence == "permanent"
        stage.byre.retry(["sb-1"])
        stage.settle()
    stage.check()
    stage.check_quiet()


def test_a_loop_that_goes_while_the_table_is_loaded_is_made_again(folder: Path) -> None:
    stage = Stage(folder)
    once = iter([stage.kernel])

    def let_go(_: object) -> None:
        for kernel in once:
            assert kernel.detach_loop_by_hand(_loop_of(stage))

    stage.kernel.faults.hook("dm_load", let_go)
    stage.kernel.faults.fail("dm_load", errno.EIO)  # what a read of its header gives then
    stage.declare()
    failure = first_failure(stage)
    assert failure is not None
    assert (failure.consequence, failure.kind) == ("transient", "again")
    assert "went while the table of byre-sb-1 was loaded" in failure.message
    stage.settle()
    assert stage.record().state is State.SNAPSHOTTED
    stage.check()
    stage.close()


def _loop_of(stage: Stage) -> int:
    (number,) = (loop.number for loop in stage.kernel.loops() if not loop.read_only)
    return number

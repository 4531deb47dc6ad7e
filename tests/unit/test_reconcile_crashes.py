"""The process dies before or after every single change to the kernel, in every transition."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.kernel.sim import SimCrash
from reconciler.kernel.sim.faults import When
from statemachine.machine import Desired, Trigger
from statemachine.spec import DriverChoice
from tests.unit.builders import LINK, Stage

Step = Callable[[Stage], object]


def declare(state: Desired) -> Step:
    return lambda stage: stage.declare(state=state, link=LINK)


def by_hand(stage: Stage) -> None:
    """Take the link and the device away, as a clumsy administrator would."""
    stage.kernel.delete(LINK)
    stage.kernel.suspend_dm_by_hand("byre-sb-1")


SCENARIOS: dict[str, tuple[list[Step], Step]] = {
    "attach": ([], declare(Desired.ATTACHED)),
    "snapshot": ([declare(Desired.ATTACHED)], declare(Desired.LIVE)),
    "pause": ([declare(Desired.LIVE)], declare(Desired.PAUSED)),
    "restore": ([declare(Desired.LIVE), declare(Desired.PAUSED)], declare(Desired.LIVE)),
    "pause-restored": (
        [declare(Desired.LIVE), declare(Desired.PAUSED), declare(Desired.LIVE)],
        declare(Desired.PAUSED),
    ),
    "remove-attached": ([declare(Desired.ATTACHED)], declare(Desired.REMOVED)),
    "remove-live": ([declare(Desired.LIVE)], declare(Desired.REMOVED)),
    "remove-paused": ([declare(Desired.LIVE), declare(Desired.PAUSED)], declare(Desired.REMOVED)),
    "repair": ([declare(Desired.LIVE)], by_hand),
    "whole-way-up": ([], declare(Desired.LIVE)),
}


def prepared(folder: Path, name: str, *, has_dm: bool) -> Stage:
    """Return a stage right before the scenario's own step; points count from here."""
    shutil.rmtree(folder / "root", ignore_errors=True)
    stage = Stage(folder)
    stage.kernel.host.dm_errno = 0 if has_dm else 19
    before, last = SCENARIOS[name]
    for step in before:
        step(stage)
        stage.settle()
    last(stage)
    stage.kernel.faults.clear()
    return stage


def count_points(folder: Path, name: str, *, has_dm: bool) -> int:
    stage = prepared(folder, name, has_dm=has_dm)
    stage.settle()
    stage.check()
    stage.close()
    return stage.kernel.faults.points


def crash(folder: Path, name: str, point: int, when: When, *, has_dm: bool) -> None:
    """Die at one point, start again, and expect what a run without a crash gives."""
    stage = prepared(folder, name, has_dm=has_dm)
    stage.kernel.faults.crash_at(point, when=when)
    with pytest.raises(SimCrash):
        stage.settle()
    stage.restart()
    stage.settle()
    stage.check()
    stage.check_quiet()
    stage.close()


@pytest.mark.parametrize("has_dm", [True, False], ids=["dm-snapshot", "clone"])
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "repair"])
def test_a_crash_at_any_point_is_made_good(folder: Path, name: str, *, has_dm: bool) -> None:
    points = count_points(folder, name, has_dm=has_dm)
    assert points > 0
    for point in range(1, points + 1):
        crash(folder, name, point, "before", has_dm=has_dm)
        crash(folder, name, point, "after", has_dm=has_dm)


def test_a_crash_while_repairing_is_made_good(folder: Path) -> None:
    for point in range(1, count_points(folder, "repair", has_dm=True) + 1):
        crash(folder, "repair", point, "before", has_dm=True)
        crash(folder, "repair", point, "after", has_dm=True)


def test_a_crash_and_a_reboot_at_any_point_of_the_way_up_are_made_good(folder: Path) -> None:
    for point in range(1, count_points(folder, "whole-way-up", has_dm=True) + 1):
        stage = prepared(folder, "whole-way-up", has_dm=True)
        stage.kernel.faults.crash_at(point, when="after")
        with pytest.raises(SimCrash):
            stage.settle()
        stage.kernel.reboot(renumber=True)
        stage.restart()
        stage.settle()
        stage.check()
        stage.close()


@pytest.mark.parametrize("name", ["attach", "snapshot", "restore", "whole-way-up"])
def test_giving_a_disk_up_after_a_crash_leaves_nothing(folder: Path, name: str) -> None:
    for point in range(1, count_points(folder, name, has_dm=True) + 1):
        stage = prepared(folder, name, has_dm=True)
        stage.kernel.faults.crash_at(point, when="after")
        with pytest.raises(SimCrash):
            stage.settle()
        stage.restart()
        stage.command(Trigger.REMOVE)
        stage.check()
        assert (stage.kernel.loops(), stage.kernel.dm_names()) == ((), ())
        stage.close()


def test_the_clone_driver_was_used_where_there_is_no_device_mapper(folder: Path) -> None:
    stage = prepared(folder, "pause", has_dm=False)
    assert stage.record().driver == DriverChoice.CLONE
    assert "no device-mapper" in stage.record().driver_reason
    stage.close()

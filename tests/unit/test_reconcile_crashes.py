"""The process dies at every call of the port and at every commit, in every transition."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from statemachine.machine import Trigger
from statemachine.spec import DriverChoice
from tests.unit.crashing import CLONED, COMMIT, SCENARIOS, points_of, prepared

Record = Callable[[str, object], None]

EVERY = [*((name, True) for name in SCENARIOS), *((name, False) for name in CLONED)]


@pytest.mark.parametrize(
    ("name", "has_dm"), EVERY, ids=[f"{name}-{'dm' if dm else 'clone'}" for name, dm in EVERY]
)
def test_a_crash_at_any_point_is_made_good(
    folder: Path, name: str, record_property: Record, *, has_dm: bool
) -> None:
    points = points_of(folder, name, has_dm=has_dm)
    # The clone driver asks the same questions, and fewer.
    tried = range(points.count + 1) if has_dm else (0, *points.durable)
    for point in tried:
        rig = prepared(folder, name, has_dm=has_dm)
        rig.die_after(point)
        assert rig.dies()
        rig.recovers()
    record_property("crash_points", len(tried))
    print(f"{name}: {len(tried)} crash points of {points.count + 1}")  # noqa: T201 - shown by -rP


def test_the_points_are_questions_changes_and_commits(folder: Path) -> None:
    rig = prepared(folder, "whole-way-up")
    rig.stage.settle()
    names = [call.name for call in rig.stage.kernel.trace]
    assert {"dm", "loops", "create_sparse", "dm_create", COMMIT} <= set(names)
    commits = [call for call in rig.stage.kernel.trace if call.name == COMMIT]
    assert [call.args for call in commits] == [
        ("transition.started",),
        ("transition.completed", "transition.started"),
        ("transition.completed",),
    ]
    rig.stage.close()


def test_a_crash_and_a_reboot_at_any_point_of_the_way_up_are_made_good(folder: Path) -> None:
    for point in points_of(folder, "whole-way-up").durable:
        rig = prepared(folder, "whole-way-up")
        rig.die_after(point)
        assert rig.dies()
        rig.stage.kernel.reboot(renumber=True)
        rig.recovers()


@pytest.mark.parametrize("name", ["pause", "restore", "remove-live", "lose", "repair"])
def test_a_power_cut_at_any_point_loses_nothing_that_was_flushed(folder: Path, name: str) -> None:
    for point in points_of(folder, name).durable:
        rig = prepared(folder, name)
        rig.die_after(point)
        assert rig.dies()
        rig.stage.kernel.reboot(lose_unsynced=True)
        rig.recovers()


@pytest.mark.parametrize("name", ["attach", "snapshot", "restore", "whole-way-up"])
def test_giving_a_disk_up_after_a_crash_leaves_nothing(folder: Path, name: str) -> None:
    for point in points_of(folder, name).durable:
        rig = prepared(folder, name)
        rig.die_after(point)
        assert rig.dies()
        rig.restart()
        rig.stage.command(Trigger.REMOVE)
        rig.stage.check()
        assert (rig.stage.kernel.loops(), rig.stage.kernel.dm_names()) == ((), ())
        rig.stage.close()


def test_the_clone_driver_was_used_where_there_is_no_device_mapper(folder: Path) -> None:
    stage = prepared(folder, "pause", has_dm=False).stage
    assert stage.record().driver == DriverChoice.CLONE
    assert "no device-mapper" in stage.record().driver_reason
    stage.close()

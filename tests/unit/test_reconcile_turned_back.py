"""Somebody wants a disk merely attached while, or after, it is on its way to being live."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from reconciler.kernel.sim import SimCrash
from statemachine.errors import IllegalTransition
from statemachine.machine import Desired, State
from tests.unit.builders import Stage


def crash_at_load(folder: Path) -> Stage:
    """Return a stage whose disk is half made: a dm device without a live table."""
    stage = Stage(folder)
    stage.declare(state=Desired.ATTACHED)
    stage.settle()
    stage.declare(state=Desired.LIVE)
    faults = stage.kernel.faults
    for point in range(1, 20):
        faults.clear()
        faults.crash_at(point, when="after")
        try:
            stage.settle()
        except SimCrash:
            stage.restart()
            if stage.kernel.dm_names() and not stage.record().device:
                return stage
    raise AssertionError("no crash left a half-made device")


def test_what_is_begun_is_finished_before_it_can_be_turned_back(folder: Path) -> None:
    stage = crash_at_load(folder)
    with pytest.raises(IllegalTransition):
        stage.declare(state=Desired.ATTACHED)
    stage.settle()
    assert stage.record().state is State.SNAPSHOTTED
    stage.check()
    stage.close()


def test_a_half_made_device_goes_when_the_disk_is_to_stay_attached(folder: Path) -> None:
    stage = crash_at_load(folder)
    stage.kernel.faults.fail("dm_remove", errno.EBUSY, times=1)
    stage.once()
    assert stage.record().in_flight is None
    stage.declare(state=Desired.ATTACHED)
    stage.settle()
    assert (stage.record().state, stage.kernel.dm_names()) == (State.ATTACHED, ())
    stage.check()
    stage.close()

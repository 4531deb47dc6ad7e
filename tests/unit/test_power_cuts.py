"""A power cut takes what nobody flushed: what byre told is there all the same, on its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.kernel.port import CowHeader
from reconciler.kernel.sim import SimCrash
from statemachine.machine import Desired, State, Trigger
from tests.unit.builders import Stage


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    """A root on a simulated host, whose own names and base are on disk."""
    made = Stage(folder)
    made.kernel.sync()
    yield made
    made.close()


def cut_the_power(stage: Stage) -> None:
    """Lose what was not flushed, boot, and let a new reconciler do its work."""
    stage.kernel.reboot(lose_unsynced=True)
    stage.restart()
    stage.settle()


def test_a_disk_that_nobody_wrote_to_comes_back_live(stage: Stage) -> None:
    stage.live()
    cut_the_power(stage)
    assert (stage.record().state, stage.record().fault) == (State.RESTORED, None)
    assert stage.kernel.read(stage.record().device, 0, 4) == b"base"
    stage.check()


def test_a_disk_that_was_paused_unwritten_can_be_restored(stage: Stage) -> None:
    stage.live()
    stage.command(Trigger.PAUSE)
    cut_the_power(stage)
    assert stage.record().fault is None
    assert stage.command(Trigger.RESTORE).state is State.RESTORED
    stage.check()


def test_what_was_flushed_is_there_and_what_was_not_may_be(stage: Stage) -> None:
    device = stage.live().device
    stage.kernel.write(device, 0, b"kept")
    stage.kernel.flush(device)
    stage.kernel.write(device, 0, b"lost")
    cut_the_power(stage)
    assert stage.kernel.read(stage.record().device, 0, 4) == b"kept"
    stage.check()


@pytest.mark.parametrize("call", ["dm_load", "sync_file", "dm_resume", "loop_set_autoclear"])
def test_a_power_cut_amid_the_first_life_is_gone_on_with(stage: Stage, call: str) -> None:
    stage.declare()
    stage.kernel.faults.crash_in(call)
    with pytest.raises(SimCrash):
        stage.settle()
    stage.kernel.faults.revive()
    cut_the_power(stage)
    assert stage.record().state in (State.SNAPSHOTTED, State.RESTORED)
    stage.check()


def test_a_header_that_cannot_be_flushed_fails_the_transition(stage: Stage) -> None:
    """What is not on disk must not be told."""
    stage.declare()
    stage.kernel.faults.fail("sync_file", 5, times=1)
    stage.once()
    record = stage.record()
    assert record.failure is not None
    assert (record.state, record.failure.trigger.value) == (State.ATTACHED, "snapshot")
    assert stage.kernel.dm_names() == ()


def test_a_later_life_needs_no_flush(stage: Stage) -> None:
    """There may be much to flush, and the header was flushed in the first one."""
    record = stage.live()
    stage.kernel.write(record.device, 0, b"data")
    stage.command(Trigger.PAUSE)
    before = len(stage.kernel.trace)
    stage.command(Trigger.RESTORE)
    calls = [call.name for call in stage.kernel.trace[before:]]
    assert "dm_load" in calls
    assert "sync_file" not in calls


def test_an_attached_disk_has_no_header_yet(stage: Stage) -> None:
    stage.declare(state=Desired.ATTACHED)
    stage.settle()
    cut_the_power(stage)
    record = stage.record()
    assert record.state is State.ATTACHED
    assert stage.kernel.cow_header(Path(record.cow_path)) is CowHeader.EMPTY
    stage.check()

"""A pass begins with a record in memory; the log decides when that is not the newest one."""

from __future__ import annotations

from pathlib import Path

from statemachine.machine import State, Trigger
from tests.unit.builders import Stage


def test_a_record_in_memory_that_is_behind_the_log_changes_nothing(folder: Path) -> None:
    stage = Stage(folder)
    stage.declare()
    behind = stage.record()
    stage.byre.command(["sb-1"], Trigger.REMOVE)
    before = stage.kernel.faults.changes
    stage.new_reconciler({"sb-1": behind}.get).reconcile("sb-1")
    assert stage.record().state is State.REMOVED
    assert "started attach" not in " ".join(stage.types())
    made = [call.name for call in stage.kernel.faults.changes[len(before) :]]
    assert "loop_attach" not in made
    stage.close()

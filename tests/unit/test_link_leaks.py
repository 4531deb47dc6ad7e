"""What arcbox's links left behind (its pull request 209, by its reviewers): one test for each."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from statemachine.machine import State, Trigger
from statemachine.observed import LinkKind
from tests.unit.builders import JAIL, LINK, Stage, leaks

SECOND = LINK.parents[1] / "sb-2" / "rootfs.link"


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def test_a_symlink_that_cannot_be_made_leaves_no_device_no_loop_and_no_folder(stage: Stage) -> None:
    stage.kernel.faults.fail("put_link", errno.EACCES, times=None)
    stage.declare(link=LINK)
    stage.settle()
    assert stage.record().failure is not None
    assert [line.name for line in stage.kernel.dm_names()] == []
    assert stage.kernel.identify(LINK.parent) is None
    assert leaks(stage) == []
    stage.command(Trigger.REMOVE)
    assert stage.kernel.loops() == ()
    assert stage.kernel.list_folder(stage.byre.root.cows) == ()


@pytest.mark.parametrize("goes_first", ["sb-1", "sb-2"])
def test_the_folders_of_both_disks_go_when_a_link_was_taken_over(
    stage: Stage, goes_first: str
) -> None:
    stage.live("sb-1", link=LINK)
    stage.live("sb-2", link=SECOND)
    stage.byre.hand_over("sb-2", "sb-1")
    stage.settle()
    assert stage.kernel.identify(SECOND.parent) is None
    stage.command(Trigger.REMOVE, goes_first)
    is_needed = goes_first == "sb-1"
    assert (stage.kernel.identify(LINK.parent) is not None) is is_needed
    stage.command(Trigger.REMOVE, "sb-2" if is_needed else "sb-1")
    assert stage.kernel.identify(LINK.parents[1]) is None
    assert {record.state for record in stage.byre.log.records()} == {State.REMOVED}


@pytest.mark.parametrize("has_dm", [True, False], ids=["dm", "clone"])
def test_a_start_that_fails_leaves_no_link_to_nowhere(stage: Stage, *, has_dm: bool) -> None:
    """What comes after the link fails, when the disk that it was taken over from is gone."""
    stage.kernel.host.dm_errno = 0 if has_dm else errno.ENODEV
    stage.live("sb-1", link=LINK)
    stage.live("sb-2", jail=JAIL)
    stage.command(Trigger.PAUSE, "sb-2")
    stage.byre.hand_over("sb-2", "sb-1")
    stage.command(Trigger.REMOVE, "sb-1")
    stage.byre.command(["sb-2"], Trigger.RESTORE)
    stage.kernel.faults.fail("put_node", errno.EIO, times=None)
    stage.once("sb-2")
    assert stage.record("sb-2").failure is not None
    assert stage.kernel.read_link(LINK).kind is LinkKind.MISSING
    stage.kernel.faults.clear()
    stage.byre.retry(["sb-2"])
    stage.settle()
    assert stage.kernel.read_link(LINK).target == stage.record("sb-2").device
    stage.check()

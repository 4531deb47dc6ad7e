"""A survey calls a disk quiet only when a pass would leave it alone (simulated kernel)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler import survey
from statemachine.machine import Trigger
from statemachine.units import Bytes
from tests.unit.builders import LINK, MIB, Stage

CHUNK = 4096


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def quiet(stage: Stage) -> dict[str, bool]:
    seen = survey.take(stage.kernel, stage.byre.root, stage.settings)
    records = stage.byre.log.records()
    return {record.name: survey.is_quiet(record, seen, stage.kernel) for record in records}


def test_disks_as_they_should_be_are_quiet(stage: Stage) -> None:
    stage.live("sb-1", link=LINK)
    stage.live("sb-2")
    stage.live("sb-3")
    stage.live("sb-4")
    stage.command(Trigger.PAUSE, "sb-2")
    stage.command(Trigger.REMOVE, "sb-3")
    stage.command(Trigger.PAUSE, "sb-4")
    stage.command(Trigger.RESTORE, "sb-4")
    assert quiet(stage) == {"sb-1": True, "sb-2": True, "sb-3": True, "sb-4": True}
    assert stage.kernel.faults.points, "something was done at all"


def test_it_asks_little(stage: Stage) -> None:
    for number in range(10):
        stage.live(f"sb-{number}")
    before = stage.kernel.faults.calls
    assert all(quiet(stage).values())
    assert stage.kernel.faults.calls - before < 10, "the lists once, and nothing for each disk"


def test_disks_in_any_state_are_no_strangers_and_neither_is_what_is_foreign(stage: Stage) -> None:
    stage.live("sb-1", link=LINK)
    stage.live("sb-2")
    stage.live("sb-3")
    stage.command(Trigger.PAUSE, "sb-2")
    stage.command(Trigger.REMOVE, "sb-3")
    stage.kernel.add_foreign_dm("byre-y", uuid="CRYPT-1")
    stage.kernel.add_foreign_loop(stage.kernel.make_file("/srv/other.img", MIB))
    seen = survey.take(stage.kernel, stage.byre.root, stage.settings)
    assert not survey.has_strangers(stage.byre.log.in_use(), seen, stage.kernel)


def suspend(stage: Stage) -> None:
    stage.kernel.suspend_dm_by_hand("byre-sb-1")


def remove(stage: Stage) -> None:
    stage.kernel.remove_dm_by_hand("byre-sb-1")


def drop_link(stage: Stage) -> None:
    stage.kernel.delete(LINK)


def drop_node(stage: Stage) -> None:
    stage.kernel.delete(Path("/dev/mapper/byre-sb-1"))


def delete_cow(stage: Stage) -> None:
    stage.kernel.delete(stage.record().cow_path)


def fill(stage: Stage) -> None:
    for chunk in range(MIB // CHUNK):
        stage.kernel.write(stage.record().device, chunk * CHUNK, b"y" * CHUNK)


def no_room(stage: Stage) -> None:
    files = stage.kernel.host.tree.root.fs
    files.resize(Bytes(1024 * MIB))
    files.used = 1020 * MIB // CHUNK


def want_paused(stage: Stage) -> None:
    stage.byre.command(["sb-1"], Trigger.PAUSE)


def reboot(stage: Stage) -> None:
    stage.kernel.reboot()


@pytest.mark.parametrize(
    "change",
    [suspend, remove, drop_link, drop_node, delete_cow, fill, no_room, want_paused, reboot],
)
def test_a_live_disk_that_differs_is_not(stage: Stage, change: Callable[[Stage], None]) -> None:
    stage.live(link=LINK)
    assert quiet(stage) == {"sb-1": True}
    change(stage)
    assert quiet(stage) == {"sb-1": False}


@pytest.mark.parametrize("change", [delete_cow, reboot])
def test_a_paused_disk_that_differs_is_not(stage: Stage, change: Callable[[Stage], None]) -> None:
    stage.live()
    stage.command(Trigger.PAUSE)
    assert quiet(stage) == {"sb-1": True}
    change(stage)
    assert quiet(stage) == {"sb-1": False}

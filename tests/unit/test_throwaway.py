"""Throwaway disks (`persistent = false`): their data goes with their device, as was said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from reconciler.kernel.sim import SimCrash
from reconciler.source import WhenLive
from reconciler.storecheck import check_disk
from statemachine.errors import RefusedError, SpecError
from statemachine.machine import Desired, State, Trigger
from statemachine.spec import DiskSpec, DriverChoice
from statemachine.specreader import parse
from tests.unit.builders import BASE, JAIL, LINK, MIB, Stage
from tests.unit.crashing import count_commits
from tests.unit.diskyard import CHUNK, Yard

AT, DATA = 3 * CHUNK, b"gone with the device"


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def declared(stage: Stage, state: Desired = Desired.LIVE, *, clone: bool = False) -> None:
    driver = DriverChoice.CLONE if clone else DriverChoice.AUTO
    stage.byre.ensure(
        "sb-1", base=BASE, state=state, link=LINK, jail=JAIL, persistent=False, driver=driver
    )


def live(stage: Stage, *, clone: bool = False) -> None:
    """Make a live throwaway disk with data in it."""
    declared(stage, clone=clone)
    stage.settle()
    stage.kernel.write(LINK, AT, DATA)


def shown(stage: Stage) -> bytes:
    return stage.kernel.read(LINK, AT, len(DATA))


def test_its_table_keeps_no_exceptions(stage: Stage) -> None:
    live(stage)
    device = stage.kernel.dm("byre-sb-1")
    assert device is not None
    assert device.table is not None
    assert (device.table.persistent, shown(stage)) == ("N", DATA)
    # The very first chunk of its file is a copy: there is no header, and no metadata.
    assert stage.kernel.read(stage.record().cow_path, 0, len(DATA)) == DATA
    assert stage.types()[-1] == "transition.completed snapshot"
    stage.check()
    stage.check_quiet()


@pytest.mark.parametrize("clone", [False, True])
def test_one_that_vanished_is_made_anew_and_empty_and_the_log_says_so(
    stage: Stage,
    clone: bool,  # noqa: FBT001 - pytest
) -> None:
    live(stage, clone=clone)
    stage.kernel.sync()
    stage.live("sb-0")  # takes the number that the device had before
    stage.command(Trigger.PAUSE, "sb-0")
    stage.kernel.reboot(renumber=True)
    stage.restart()
    stage.settle()
    record = stage.record()
    assert record.state is State.SNAPSHOTTED
    assert shown(stage) == bytes(len(DATA))
    drift = next(event for event in stage.events() if event.type == "drift.detected")
    assert (drift.data["trigger"], drift.data["cause"]) == ("vanish", "reboot")
    assert stage.types()[-5:] == [
        "drift.detected vanish",
        "transition.started attach",
        "transition.completed attach",
        "transition.started snapshot",
        "transition.completed snapshot",
    ]
    stage.check()


def test_one_that_somebody_removed_by_hand_is_made_anew(stage: Stage) -> None:
    live(stage)
    stage.kernel.remove_dm_by_hand("byre-sb-1")
    stage.settle()
    assert shown(stage) == bytes(len(DATA))
    stage.check()


def test_one_whose_file_went_too_is_made_anew(stage: Stage) -> None:
    live(stage)
    stage.kernel.reboot(renumber=True)
    stage.kernel.delete(stage.record().cow_path)
    stage.restart()
    stage.settle()
    assert shown(stage) == bytes(len(DATA))
    stage.check()


def test_a_restart_of_byre_leaves_it_alone(stage: Stage) -> None:
    live(stage)
    stage.restart()
    stage.settle()
    assert shown(stage) == DATA
    stage.check_quiet()


def test_it_is_removed_with_its_file(stage: Stage) -> None:
    live(stage)
    stage.command(Trigger.REMOVE)
    assert stage.kernel.list_folder(stage.byre.root.cows) == ()
    stage.check()


def test_it_cannot_be_paused(stage: Stage) -> None:
    with pytest.raises(SpecError, match="allowed: attached, live, removed with persistent = false"):
        declared(stage, Desired.PAUSED)
    live(stage)
    with pytest.raises(RefusedError, match="sb-1 is a throwaway disk") as caught:
        stage.byre.command(["sb-1"], Trigger.PAUSE)
    assert caught.value.exit_code == 4
    assert stage.record().desired is Desired.LIVE


ASKS: dict[str, Callable[[Stage], object]] = {
    "fork": lambda stage: stage.byre.fork("sb-1", ["sb-2"]),
    "checkpoint": lambda stage: stage.byre.checkpoint("sb-1"),
}


@pytest.mark.parametrize("clone", [False, True])
@pytest.mark.parametrize("name", ASKS)
def test_it_is_neither_forked_nor_kept(
    stage: Stage,
    name: str,
    clone: bool,  # noqa: FBT001 - pytest
) -> None:
    live(stage, clone=clone)
    with pytest.raises(RefusedError, match="throwaway disk: its data goes with its device"):
        ASKS[name](stage)


def test_its_file_is_not_read_as_a_store(stage: Stage) -> None:
    live(stage)
    record = stage.record()
    with pytest.raises(RefusedError, match="nothing in its file tells what is where"):
        stage.byre.sources().refuse(record, WhenLive.SUSPEND)
    checked = check_disk(stage.byre.sources(), record)
    assert "throwaway" in checked.note


@pytest.mark.parametrize("was", [True, False])
def test_whether_data_is_kept_is_said_once(stage: Stage, was: bool) -> None:  # noqa: FBT001 - pytest
    stage.byre.ensure("sb-1", base=BASE, persistent=was)
    stage.byre.ensure("sb-1", base=BASE, persistent=not was)
    stage.byre.ensure("sb-1", base=BASE, persistent=was)
    stage.settle()
    with pytest.raises(RefusedError, match=r"its persistent is .*; it cannot become"):
        stage.byre.ensure("sb-1", base=BASE, persistent=not was)


def test_a_device_that_keeps_exceptions_is_not_taken_for_it(stage: Stage) -> None:
    live(stage)
    device = stage.kernel.dm("byre-sb-1")
    assert device is not None
    record = stage.record()
    view, _ = stage.byre.look(record)
    assert not view.seen.fault
    kept = attrs.evolve(record, spec={**record.spec, "persistent": "true"})
    view, _ = stage.byre.look(kept)
    assert "has exceptions N, its spec says P" in view.seen.fault


def test_a_spec_of_before_is_as_it_was() -> None:
    [spec] = parse({"disk": [{"name": "sb-1", "base": "/b"}]}, source="s", folder=Path("/"))
    assert "persistent" not in spec.to_data()
    assert DiskSpec.from_data(spec.to_data()).persistent
    with pytest.raises(SpecError, match="true, false"):
        parse(
            {"disk": [{"name": "sb-1", "base": "/b", "persistent": "no"}]},
            source="s",
            folder=Path("/"),
        )


@pytest.mark.parametrize("gone", [False, True])
def test_a_crash_at_any_point_on_the_way_up_is_made_good(
    folder: Path,
    gone: bool,  # noqa: FBT001 - pytest
) -> None:
    point, died = 0, True
    while died:
        root = folder / f"{point}"
        root.mkdir()
        stage = Stage(root)
        declared(stage)
        if gone:
            stage.settle()
            stage.kernel.write(LINK, AT, DATA)
            stage.kernel.remove_dm_by_hand("byre-sb-1")
        count_commits(stage)
        faults = stage.kernel.faults
        faults.crash_at_call(faults.calls + point + 1, when="before" if point == 0 else "after")
        try:
            stage.settle()
            died = False
        except SimCrash:
            died = True
        faults.clear()
        stage.restart()
        stage.settle()
        stage.check()
        stage.check_quiet()
        assert shown(stage) == bytes(len(DATA))
        stage.close()
        point += 3
    assert point > 30


def test_the_command_makes_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yard = Yard(folder, capsys)
    yard.make_base(bytes(MIB))
    yard.byre("create", "sb-1", "--base", yard.base, "--throwaway")
    [got] = yard.byre("get", "sb-1", "-o", "json").json
    assert got["persistent"] is False
    assert "throwaway" in yard.byre("pause", "sb-1", code=4).err
    yard.byre("create", "sb-2", "--base", yard.base, "--throwaway", "--desired", "paused", code=2)

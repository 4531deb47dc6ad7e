"""Direct IO of a disk's own loop: made so, kept so, changed under a live disk, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler import survey
from reconciler.kernel.sim import SimKernel
from statemachine.errors import PermanentError
from statemachine.machine import State, Trigger
from statemachine.observed import Loop
from statemachine.spec import DriverChoice
from tests.unit.builders import BASE, MIB, Stage

DRIVERS = [DriverChoice.DM_SNAPSHOT, DriverChoice.CLONE]


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def cow_loop(stage: Stage) -> Loop:
    number = stage.record().cow_loop
    assert number is not None
    loop = stage.kernel.loop(number)
    assert loop is not None
    return loop


def ensure(stage: Stage, *, direct_io: bool, driver: DriverChoice = DriverChoice.AUTO) -> None:
    stage.byre.ensure("sb-1", base=BASE, direct_io=direct_io, driver=driver)
    stage.settle()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_disk_has_it_for_its_whole_life_and_its_base_has_not(
    stage: Stage, driver: DriverChoice
) -> None:
    ensure(stage, direct_io=True, driver=driver)
    assert cow_loop(stage).direct_io
    stage.command(Trigger.PAUSE)
    stage.command(Trigger.RESTORE)
    assert cow_loop(stage).direct_io
    others = [loop for loop in stage.kernel.loops() if loop.number != cow_loop(stage).number]
    assert not any(loop.direct_io for loop in others)
    stage.check()
    stage.check_quiet()


def test_without_it_nothing_is_switched(stage: Stage) -> None:
    stage.live()
    assert not cow_loop(stage).direct_io
    assert "loop_set_direct_io" not in {call.name for call in stage.kernel.trace}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("wanted", [True, False])
def test_a_changed_spec_takes_effect_under_the_live_disk(
    stage: Stage,
    wanted: bool,  # noqa: FBT001
    driver: DriverChoice,
) -> None:
    ensure(stage, direct_io=not wanted, driver=driver)
    calls, state = len(stage.kernel.trace), stage.record().state
    ensure(stage, direct_io=wanted, driver=driver)
    assert (cow_loop(stage).direct_io, stage.record().state) == (wanted, state)
    done = {call.name for call in stage.kernel.trace[calls:]}
    assert set() == done & {"dm_suspend", "dm_remove", "loop_detach", "loop_attach"}
    stage.check_quiet()


@pytest.mark.parametrize("driver", DRIVERS)
def test_one_that_somebody_switched_is_switched_back_and_told_of(
    stage: Stage, driver: DriverChoice
) -> None:
    ensure(stage, direct_io=True, driver=driver)
    loop = cow_loop(stage)
    stage.kernel.loop_set_direct_io(loop, on=False)
    stage.settle()
    assert cow_loop(stage).direct_io
    [drift] = [event for event in stage.events() if event.type == "drift.detected"]
    assert drift.data["differences"] == [f"direct IO of {loop.path} is off"]
    stage.check_quiet()


def test_a_resync_sees_that_it_was_switched_off(stage: Stage) -> None:
    ensure(stage, direct_io=True)

    def is_quiet() -> bool:
        seen = survey.take(stage.kernel, stage.byre.root, stage.settings)
        return survey.is_quiet(stage.record(), seen, stage.kernel)

    assert is_quiet()
    stage.kernel.loop_set_direct_io(cow_loop(stage), on=False)
    assert not is_quiet()


class TestWhereItCannotBe:
    @pytest.fixture(autouse=True)
    def _without(self, stage: Stage) -> None:
        stage.kernel.host.tree.root.fs.direct_io = False

    def test_a_new_disk_is_refused_and_nothing_is_left(self, stage: Stage) -> None:
        ensure(stage, direct_io=True)
        failure = stage.record().failure
        assert failure is not None
        assert (failure.kind, failure.consequence) == ("no-direct-io", "permanent")
        assert stage.record().cow_path in failure.message
        assert "direct_io = false" in failure.hint
        assert stage.record().state is State.ABSENT
        assert stage.kernel.loops() == ()
        assert stage.kernel.list_folder(stage.byre.root.cows) == ()

    def test_a_live_disk_stays_live_and_says_so(self, stage: Stage) -> None:
        stage.live()
        ensure(stage, direct_io=True)
        record = stage.record()
        assert record.failure is not None
        assert (record.failure.kind, record.state) == ("no-direct-io", State.SNAPSHOTTED)
        assert stage.kernel.read(record.device, 0, 4) == b"base"

    def test_saying_no_direct_io_makes_it_well_again(self, stage: Stage) -> None:
        ensure(stage, direct_io=True)
        ensure(stage, direct_io=False)
        assert stage.record().failure is None
        stage.check()


def test_the_port_says_einval_and_tells_changed_from_unchanged() -> None:
    sim = SimKernel()
    path = sim.make_file(BASE, MIB)
    file = sim.identify(path)
    assert file is not None
    loop = sim.loop_attach(path, file, marker="", read_only=False)
    assert [sim.loop_set_direct_io(loop, on=on) for on in (False, True, True)] == [
        False,
        True,
        False,
    ]
    sim.host.tree.root.fs.direct_io = False
    sim.loop_set_direct_io(loop, on=False)
    with pytest.raises(PermanentError):
        sim.loop_set_direct_io(loop, on=True)

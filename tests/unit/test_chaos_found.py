"""What `byre chaos` found, each by name: small cases of what took a storm to see."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.bases import BaseLoops
from reconciler.kernel.sim import SimCrash, SimKernel
from statemachine.machine import Desired, State, Trigger
from statemachine.names import DmUuid, base_marker
from statemachine.observed import LinkKind
from statemachine.spec import DriverChoice
from tests.unit.builders import BASE, LINK, MIB, Stage

OTHER_LINK = Path("/srv/vm/sb-1/other.link")


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    """A root on a simulated host."""
    made = Stage(folder)
    yield made
    made.close()


def base_loops(stage: Stage) -> int:
    marker = base_marker(stage.byre.log.root_id)
    return sum(loop.marker == marker for loop in stage.kernel.loops())


def is_gone(stage: Stage, path: Path) -> bool:
    return stage.kernel.read_link(path).kind is LinkKind.MISSING


# --- base loops ----------------------------------------------------------------------------------


def test_a_base_loop_detached_by_hand_while_in_use_is_taken_back_for_the_next_disk(
    stage: Stage,
) -> None:
    first = stage.live("sb-1")
    assert first.base_loop is not None
    assert not stage.kernel.detach_loop_by_hand(first.base_loop)
    second = stage.live("sb-2")
    assert second.base_loop == first.base_loop
    assert base_loops(stage) == 1
    stage.command(Trigger.PAUSE, "sb-1")
    assert base_loops(stage) == 1
    stage.command(Trigger.PAUSE, "sb-2")
    assert base_loops(stage) == 0


def test_a_clone_that_was_live_at_the_start_holds_no_loop_of_its_base(stage: Stage) -> None:
    stage.declare("sb-1", driver=DriverChoice.CLONE)
    stage.live("sb-2")
    stage.restart()
    stage.command(Trigger.PAUSE, "sb-2")
    assert base_loops(stage) == 0
    stage.check()


def test_a_base_loop_made_by_a_call_that_failed_is_not_left_behind() -> None:
    kernel = SimKernel()
    kernel.make_file(BASE, MIB)
    base = kernel.identify(BASE)
    assert base is not None
    kernel.faults.fail("loop_attach", errno.EIO, when="after")
    with pytest.raises(Exception, match="Input/output error"):
        BaseLoops(kernel, "0" * 16).attach("sb-1", BASE, base)
    assert kernel.loops() == ()


# --- loops on CoW files --------------------------------------------------------------------------


def test_the_loop_on_a_deleted_file_goes_with_its_attached_disk(stage: Stage) -> None:
    stage.declare(state=Desired.ATTACHED)
    stage.settle()
    stage.kernel.delete(stage.record().cow_path)
    assert stage.command(Trigger.REMOVE).state is State.REMOVED
    assert stage.kernel.loops() == ()


def test_a_loop_made_by_a_call_that_failed_goes_with_the_file_that_is_undone(stage: Stage) -> None:
    stage.kernel.faults.fail("loop_attach", errno.EAGAIN, when="after", about=".cow")
    stage.live()
    stage.check()


def test_a_pause_that_a_crash_cut_short_spares_the_last_hold_on_a_deleted_file(
    stage: Stage,
) -> None:
    record = stage.live(link=LINK)
    stage.kernel.write(LINK, 8192, b"kept")
    stage.byre.command(["sb-1"], Trigger.PAUSE)
    stage.kernel.faults.crash_in("drop_link", when="after")
    with pytest.raises(SimCrash):
        stage.settle()
    stage.kernel.delete(record.cow_path)
    stage.restart()
    stage.settle()
    fault = stage.record().fault
    assert fault is not None
    assert fault.kind == "cow-missing"
    assert "copy that first" in fault.hint
    assert stage.kernel.read(record.device, 8192, 4) == b"kept"


def test_a_file_swapped_during_a_repair_is_not_taken_for_the_disks_own(stage: Stage) -> None:
    stage.live(link=LINK)
    record = stage.command(Trigger.PAUSE)
    stage.kernel.make_folder_by_hand(LINK.parent)
    stage.kernel.put_link(LINK, f"/dev/mapper/{record.device_name}", replaces=None)

    def swap(_call: object) -> None:
        stage.kernel.move(record.cow_path, "/srv/aside")
        stage.kernel.make_file(record.cow_path, 2 * MIB, b"another")

    stage.kernel.faults.hook("drop_link", swap)
    stage.settle()
    assert is_gone(stage, LINK)
    assert stage.record().cow == record.cow
    assert stage.record().fault is not None
    stage.kernel.delete(record.cow_path)
    stage.kernel.move("/srv/aside", record.cow_path)
    stage.byre.retry(["sb-1"])
    stage.settle()
    stage.check()


# --- links ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", [DriverChoice.DM_SNAPSHOT, DriverChoice.CLONE])
def test_the_link_of_a_lost_disk_goes_even_if_it_is_not_wanted_any_more(
    stage: Stage, driver: DriverChoice
) -> None:
    stage.declare(link=LINK, driver=driver)
    stage.settle()
    stage.kernel.reboot()
    stage.restart()
    stage.kernel.faults.fail("loop_attach", errno.EIO)
    stage.once()
    assert stage.record().state is State.PAUSED
    stage.declare(state=Desired.PAUSED, driver=driver)
    stage.settle()
    assert is_gone(stage, LINK)
    stage.check()


def test_a_clone_that_was_lost_knows_its_link_to_another_loop_again(stage: Stage) -> None:
    stage.kernel.add_foreign_loop(stage.kernel.make_file("/srv/foreign", MIB))
    stage.declare(link=LINK, driver=DriverChoice.CLONE)
    stage.settle()
    before = stage.record().link_target
    stage.kernel.reboot()
    stage.restart()
    stage.settle()
    assert stage.record().link_target != before
    stage.check()


@pytest.mark.parametrize("driver", [DriverChoice.DM_SNAPSHOT, DriverChoice.CLONE])
@pytest.mark.parametrize("wanted", [OTHER_LINK, None])
def test_a_link_that_a_crash_left_goes_even_if_another_is_wanted_by_then(
    stage: Stage, driver: DriverChoice, wanted: Path | None
) -> None:
    stage.declare(link=LINK, driver=driver)
    stage.kernel.faults.crash_in("put_link", after=driver is not DriverChoice.CLONE)
    with pytest.raises(SimCrash):
        stage.settle()
    stage.restart()
    assert not is_gone(stage, LINK)
    stage.declare(link=wanted, driver=driver)
    stage.settle()
    assert is_gone(stage, LINK)
    stage.check()
    stage.check_quiet()


def test_a_link_that_a_crash_left_goes_with_a_clone_that_is_given_up(stage: Stage) -> None:
    stage.declare(link=LINK, driver=DriverChoice.CLONE)
    stage.kernel.faults.crash_in("put_link", when="after")
    with pytest.raises(SimCrash):
        stage.settle()
    stage.restart()
    stage.kernel.faults.fail("loops", errno.EIO)
    stage.once()
    assert stage.record().failure is not None
    stage.command(Trigger.REMOVE)
    assert is_gone(stage, LINK)
    stage.check()


def test_somebodys_link_to_a_loop_is_not_taken_for_one_that_an_attempt_began(stage: Stage) -> None:
    stage.declare(link=LINK, driver=DriverChoice.CLONE)
    stage.settle()
    stage.command(Trigger.PAUSE)
    stage.kernel.make_folder_by_hand(LINK.parent)
    stage.kernel.put_link(LINK, "/dev/loop7", replaces=None)
    stage.kernel.faults.fail("loop_attach", errno.EBUSY)
    stage.command(Trigger.RESTORE)
    failure = stage.record().failure
    assert failure is not None
    assert failure.kind == "foreign-device"
    assert stage.kernel.read_link(LINK).target == "/dev/loop7"


def test_a_link_that_a_failed_call_made_is_taken_back(stage: Stage) -> None:
    stage.declare(link=LINK, driver=DriverChoice.CLONE)
    stage.kernel.faults.fail("put_link", errno.EIO, when="after")
    stage.settle()
    assert stage.record().failure is not None
    assert is_gone(stage, LINK)


@pytest.mark.parametrize("driver", [DriverChoice.DM_SNAPSHOT, DriverChoice.CLONE])
@pytest.mark.parametrize("trigger", [Trigger.PAUSE, Trigger.REMOVE])
def test_a_power_cut_brings_no_link_and_no_folder_back(
    stage: Stage, driver: DriverChoice, trigger: Trigger
) -> None:
    theirs = Path("/srv/theirs")
    stage.kernel.make_folder_by_hand(theirs)
    for name, link in (("sb-1", LINK), ("sb-2", theirs / "rootfs.link")):
        stage.declare(name, link=link, driver=driver)
    stage.settle()
    stage.kernel.sync()
    stage.command(trigger, "sb-1")
    stage.command(trigger, "sb-2")
    stage.kernel.reboot(lose_unsynced=True)
    assert stage.kernel.names_in(LINK.parent.parent) == ()
    assert stage.kernel.names_in(theirs) == ()


def test_a_power_cut_brings_no_older_text_of_a_link_back(stage: Stage) -> None:
    stage.kernel.put_link(Path("/srv/link"), "/dev/loop1", replaces=None)
    stage.kernel.sync()
    stage.kernel.put_link(Path("/srv/link"), "/dev/loop2", replaces="/dev/loop1")
    stage.kernel.reboot(lose_unsynced=True)
    assert stage.kernel.read_link(Path("/srv/link")).target == "/dev/loop2"


# --- what a failure and a fault amount to --------------------------------------------------------


def test_a_repair_that_failed_and_is_not_needed_any_more_does_not_stay_a_failure(
    stage: Stage,
) -> None:
    stage.live()
    stage.kernel.suspend_dm_by_hand("byre-sb-1")
    stage.kernel.faults.fail("dm_resume", errno.EIO)
    stage.settle()
    assert stage.record().failure is not None
    stage.kernel.resume_dm_by_hand("byre-sb-1")
    stage.settle()
    assert stage.record().failure is None
    stage.check()
    stage.check_quiet()


def test_a_device_renamed_while_it_is_repaired_is_said_to_be_gone(stage: Stage) -> None:
    stage.live()
    stage.kernel.suspend_dm_by_hand("byre-sb-1")
    rename = stage.kernel.rename_dm_by_hand
    stage.kernel.faults.hook("dm_resume", lambda _call: rename("byre-sb-1", "elsewhere"))
    stage.once()
    [failed] = [event for event in stage.events() if event.type == "transition.failed"][:1]
    assert failed.data["kind"] == "device-gone"
    rename("elsewhere", "byre-sb-1")
    stage.kernel.faults.clear()
    stage.settle()
    stage.check()


def test_a_faulted_disk_on_its_way_to_being_removed_is_not_found_to_be_live(stage: Stage) -> None:
    stage.declare(state=Desired.ATTACHED)
    stage.settle()
    record = stage.record()
    stage.kernel.add_foreign_dm(record.device_name, uuid=str(DmUuid(record.id, 1)))
    handle = stage.kernel.open(f"/dev/mapper/{record.device_name}")
    stage.byre.command(["sb-1"], Trigger.REMOVE)
    stage.once()
    assert stage.record().state is State.ATTACHED
    handle.close()
    stage.settle()
    assert stage.record().state is State.REMOVED
    stage.check()


# --- half-made devices --------------------------------------------------------------------------


def test_a_loop_that_goes_with_a_half_made_device_is_attached_anew(stage: Stage) -> None:
    stage.declare(state=Desired.ATTACHED)
    stage.settle()
    loop = stage.record().cow_loop
    assert loop is not None
    stage.declare()
    stage.kernel.faults.crash_in("dm_load", when="after")
    with pytest.raises(SimCrash):
        stage.settle()
    assert not stage.kernel.detach_loop_by_hand(loop), "the loaded table holds it"
    stage.restart()
    stage.settle()
    failed = [event for event in stage.events() if event.type == "transition.failed"]
    assert [event.data["kind"] for event in failed] == ["again"]
    assert stage.record().state is State.SNAPSHOTTED
    stage.check()


def test_a_node_that_could_not_be_dropped_when_its_device_was_removed_is_dropped_later(
    stage: Stage,
) -> None:
    stage.live()
    stage.kernel.faults.fail("drop_link", errno.EBUSY, about="/dev/mapper/byre-sb-1")
    stage.command(Trigger.PAUSE)
    assert stage.record().state is State.PAUSED
    assert is_gone(stage, Path("/dev/mapper/byre-sb-1"))
    repaired = [event.data for event in stage.events() if event.type == "drift.detected"]
    assert repaired[-1]["differences"] == ["dangling node /dev/mapper/byre-sb-1"]
    stage.check()
    stage.check_quiet()

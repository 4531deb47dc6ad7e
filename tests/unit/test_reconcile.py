"""A disk's whole life on the simulated kernel, and what goes wrong in it once."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from reconciler.clock import FakeClock
from reconciler.kernel.sim import SimKernel
from statemachine.machine import Desired, State, Trigger
from statemachine.observed import DeviceNumber, Holder, LinkKind
from statemachine.units import Bytes
from tests.unit.builders import BASE, LINK, MIB, Stage


def void(_: object) -> None:
    """Forget a result, for hooks."""


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def test_whole_life_leaves_nothing_behind_and_everything_in_the_log(stage: Stage) -> None:
    live = stage.live(link=LINK)
    assert (live.state, live.device) == (State.SNAPSHOTTED, "/dev/mapper/byre-sb-1")
    stage.check()
    stage.kernel.write(live.device, 4096, b"written before the pause")
    assert State.PAUSED is stage.command(Trigger.PAUSE).state
    stage.check()
    restored = stage.command(Trigger.RESTORE)
    assert State.RESTORED is restored.state
    assert stage.kernel.read(restored.device, 4096, 24) == b"written before the pause"
    assert stage.kernel.read(restored.device, 0, 4) == b"base"
    stage.check()
    assert State.REMOVED is stage.command(Trigger.REMOVE).state
    stage.check()
    assert stage.kernel.loops() == ()
    assert stage.kernel.identify(LINK.parent) is None, "the folder that was made for the link"
    outcomes = [each for each in stage.types() if each.startswith("transition.completed")]
    triggers = ["attach", "snapshot", "pause", "restore", "remove"]
    assert [f"transition.completed {trigger}" for trigger in triggers] == outcomes


def test_a_second_pass_does_nothing_and_writes_nothing(stage: Stage) -> None:
    stage.live(link=LINK)
    stage.check_quiet()
    stage.restart()
    stage.check_quiet()


def test_disks_on_one_base_share_its_loop_until_the_last_one_goes(stage: Stage) -> None:
    for number in range(3):
        stage.declare(f"sb-{number}")
    stage.settle()
    stage.check()
    for number in range(3):
        assert sum(loop.read_only for loop in stage.kernel.loops()) == 1
        stage.command(Trigger.REMOVE, f"sb-{number}")
        stage.check()
    assert stage.kernel.loops() == ()


# --- failures that last ---------------------------------------------------------------------------


def test_transient_failures_stall_after_so_many_attempts_with_growing_delays(stage: Stage) -> None:
    stage.kernel.faults.fail("dm_create", errno.EBUSY, times=None)
    stage.declare()
    stage.settle()
    record = stage.record()
    assert record.failure is not None
    assert (
        record.attempts, record.failure.consequence, record.failure.retry_at
    ) == (5, "permanent", None)  # fmt: skip
    failed = [event for event in stage.events() if event.type == "transition.failed"]
    delays = [event.data["retry_at"] - event.at for event in failed[:-1]]
    assert delays == [10**8, 2 * 10**8, 4 * 10**8, 8 * 10**8]
    stage.check_quiet()


def test_attempts_and_the_time_of_the_next_one_survive_a_restart(stage: Stage) -> None:
    stage.kernel.faults.fail("dm_create", errno.EBUSY, times=None)
    stage.declare()
    stage.once()
    before = stage.record()
    stage.restart()
    settled = stage.reconciler.reconcile("sb-1")
    assert (before, 0.1) == (stage.record(), settled.again_s)
    stage.clock.advance_s(0.11)
    assert stage.once().attempts == 2


def test_a_stalled_disk_is_tried_again_by_a_persons_word(stage: Stage) -> None:
    stage.kernel.faults.fail("dm_load", errno.EIO)
    stage.live()
    assert State.ATTACHED is stage.record().state
    stage.byre.retry(["sb-1"])
    stage.settle()
    stage.check()


def test_a_stalled_disk_is_tried_again_when_the_world_changes(stage: Stage) -> None:
    stage.kernel.make_file(LINK, 100)
    record = stage.live(link=LINK)
    assert record.failure is not None
    assert (record.failure.kind, record.failure.exit_code) == ("foreign-device", 4)
    assert "occupied" in record.failure.message
    stage.check_quiet()
    stage.kernel.delete(LINK)
    stage.settle()
    stage.check()


def test_a_full_file_system_blocks_until_there_is_room(folder: Path) -> None:
    kernel = SimKernel(FakeClock(autojump=True))
    stage = Stage(folder, kernel=kernel)
    kernel.faults.fail("create_sparse", errno.ENOSPC, times=3)
    stage.declare()
    stage.once()
    failure = stage.record().failure
    assert failure is not None
    assert (
        failure.consequence, failure.kind, failure.retry_at is not None
    ) == ("blocked", "enospc", True)  # fmt: skip
    stage.settle()
    stage.check()
    stage.close()


def test_a_device_in_use_is_waited_for_and_its_holder_named(stage: Stage) -> None:
    record = stage.live(link=LINK)
    holder = Holder(kind="process", name="qemu", pid=41)
    handle = stage.kernel.open(record.device, holder=holder)
    stage.byre.command(["sb-1"], Trigger.PAUSE)
    again_s = stage.reconciler.reconcile("sb-1").again_s
    failure = stage.record().failure
    assert failure is not None
    assert (
        failure.consequence, failure.kind, failure.holders
    ) == ("blocked", "in-use", ("process qemu (pid 41)",))  # fmt: skip
    assert (again_s is not None, stage.kernel.read_link(LINK).kind) == (True, LinkKind.SYMLINK)
    seq = stage.byre.log.last_seq()
    stage.once()
    assert seq == stage.byre.log.last_seq(), "waiting is not an event"
    handle.close()
    assert State.PAUSED is stage.once().state
    stage.check()


def test_a_device_that_udev_looks_into_is_tried_again(stage: Stage) -> None:
    stage.kernel.host.udev_hold_s = 1.0
    stage.live()
    stage.command(Trigger.PAUSE)
    stage.check()


# --- what is not ours -----------------------------------------------------------------------------


def test_a_foreign_device_of_our_name_is_refused_and_stays(stage: Stage) -> None:
    number = stage.kernel.add_foreign_dm("byre-sb-1", uuid="LVM-x")
    record = stage.live()
    assert record.failure is not None
    assert (record.failure.kind, record.failure.exit_code) == ("foreign-device", 4)
    stage.command(Trigger.REMOVE)
    found = stage.kernel.dm("byre-sb-1")
    assert found is not None
    assert (number, "LVM-x") == (found.device, found.uuid)


def test_a_second_loop_on_the_cow_file_is_refused_and_named(stage: Stage) -> None:
    stage.live()
    record = stage.command(Trigger.PAUSE)
    other = stage.kernel.add_foreign_loop(record.cow_path)
    stage.byre.command(["sb-1"], Trigger.RESTORE)
    stage.once()
    failure = stage.record().failure
    assert failure is not None
    assert ("two-loops", (f"/dev/loop{other}",)) == (failure.kind, failure.holders)
    stage.once()
    assert stage.record().attempts == 1
    stage.kernel.detach_loop_by_hand(other)
    # At once, and not after the backoff.
    assert stage.once().state is State.RESTORED
    stage.check()


# --- faults ---------------------------------------------------------------------------------------


def test_a_missing_cow_file_is_a_fault_and_never_a_new_file(stage: Stage) -> None:
    stage.live()
    record = stage.command(Trigger.PAUSE)
    stage.kernel.delete(record.cow_path)
    record = stage.command(Trigger.RESTORE)
    assert record.fault is not None
    assert (record.fault.kind, record.state) == ("cow-missing", State.PAUSED)
    assert stage.kernel.identify(Path(record.cow_path)) is None
    stage.check_quiet()
    assert State.REMOVED is stage.command(Trigger.REMOVE).state
    stage.check()


def test_another_file_in_the_place_of_the_cow_file_is_refused(stage: Stage) -> None:
    stage.live()
    record = stage.command(Trigger.PAUSE)
    assert record.cow is not None
    stage.kernel.make_file("/srv/hold-the-inode", 1)
    stage.kernel.replace_file(record.cow_path, record.cow.size)
    record = stage.command(Trigger.RESTORE)
    assert record.fault is not None
    assert (record.fault.kind, record.fault.exit_code) == ("identity-mismatch", 4)


@pytest.mark.parametrize("how", ["replaced", "rewritten", "missing"])
def test_a_base_that_changed_is_refused_with_both_identities(stage: Stage, how: str) -> None:
    stage.live()
    stage.command(Trigger.PAUSE)
    pin = stage.record().base
    if how == "replaced":
        stage.kernel.replace_file(BASE, MIB, b"other")
    elif how == "rewritten":
        stage.kernel.write(BASE, 0, b"other")
    else:
        stage.kernel.delete(BASE)
    failure = stage.command(Trigger.RESTORE).failure
    assert failure is not None
    if how == "missing":
        assert (failure.kind, failure.exit_code) == ("base-missing", 1)
    else:
        found = stage.kernel.identify(BASE)
        assert (failure.kind, failure.exit_code) == ("identity-mismatch", 4)
        assert (str(pin) in failure.message, str(found) in failure.message) == (True, True)
    assert State.REMOVED is stage.command(Trigger.REMOVE).state
    stage.check()


def test_a_base_replaced_under_a_live_disk_leaks_no_loop(stage: Stage) -> None:
    stage.live()
    stage.kernel.replace_file(BASE, MIB, b"other")
    stage.restart()
    assert State.REMOVED is stage.command(Trigger.REMOVE).state
    assert stage.kernel.loops() == ()


def test_a_snapshot_that_became_invalid_is_a_fault(stage: Stage) -> None:
    record = stage.live()
    stage.kernel.set_capacity("/srv", Bytes(0))
    with pytest.raises(OSError, match="Input/output"):
        stage.kernel.write(record.device, 0, b"x" * 4096)
    record = stage.once()
    assert record.fault is not None
    assert record.fault.kind == "snapshot-invalid"
    stage.kernel.set_capacity("/srv", Bytes(2**40))
    assert State.REMOVED is stage.command(Trigger.REMOVE).state
    stage.check()


def test_our_device_over_another_cow_file_is_a_fault(stage: Stage) -> None:
    record = stage.live()
    dm = stage.kernel.dm("byre-sb-1")
    assert dm is not None
    assert dm.table is not None
    stage.kernel.make_file("/srv/other.cow", 2 * MIB)
    other = stage.kernel.add_foreign_loop("/srv/other.cow")
    stage.kernel.dm_load(dm.uuid, attrs.evolve(dm.table, cow=DeviceNumber(7, other)))
    stage.kernel.dm_suspend(dm.uuid)
    stage.kernel.dm_resume(dm.uuid)
    record = stage.once()
    assert record.fault is not None
    assert (record.fault.kind, record.fault.exit_code) == ("identity-mismatch", 4)


# --- drift ----------------------------------------------------------------------------------------


def test_a_device_removed_by_hand_is_drift_and_comes_back(stage: Stage) -> None:
    stage.live(link=LINK)
    stage.kernel.remove_dm_by_hand("byre-sb-1")
    stage.settle()
    assert (stage.types()[-3:]) == [
        "drift.detected lose",
        "transition.started restore",
        "transition.completed restore",
    ]
    stage.check()


def test_a_reboot_is_told_and_live_disks_come_back_with_their_data(stage: Stage) -> None:
    record = stage.live(link=LINK)
    stage.kernel.write(record.device, 0, b"kept")
    stage.declare("sb-2", Desired.ATTACHED)
    stage.settle()
    stage.kernel.reboot(renumber=True)
    stage.restart()
    stage.settle()
    stage.check()
    [booted] = stage.byre.log.select("WHERE type = 'host.booted' ORDER BY seq LIMIT 1 OFFSET 1")
    assert booted.data["previous_boot_id"] != booted.boot_id == stage.kernel.boot_id()
    [lost] = [event for event in stage.events() if event.type == "drift.detected"]
    assert lost.data["cause"] == "reboot"
    assert stage.kernel.read(stage.record().device, 0, 4) == b"kept"


def test_a_device_made_by_hand_on_a_paused_disk_is_found_and_recorded_whole(stage: Stage) -> None:
    live = stage.live()
    dm = stage.kernel.dm("byre-sb-1")
    assert dm is not None
    assert dm.table is not None
    paused = stage.command(Trigger.PAUSE)
    kernel = stage.kernel
    loops = [kernel.add_foreign_loop(BASE), kernel.add_foreign_loop(paused.cow_path)]
    origin, cow = (DeviceNumber(7, number) for number in loops)
    kernel.dm_create("byre-sb-1", dm.uuid)
    kernel.dm_load(dm.uuid, attrs.evolve(dm.table, origin=origin, cow=cow))
    kernel.dm_resume(dm.uuid)
    stage.byre.command(["sb-1"], Trigger.RESTORE)
    stage.settle()
    record = stage.record()
    assert "drift.detected find" in stage.types()
    assert (State.RESTORED, live.device) == (record.state, record.device)


# --- declared meanwhile ---------------------------------------------------------------------------


def test_a_disk_wanted_again_while_it_is_removed_begins_its_next_generation(stage: Stage) -> None:
    first = stage.live()
    stage.byre.command(["sb-1"], Trigger.REMOVE)
    stage.kernel.faults.hook("dm_remove", lambda _: stage.declare())
    stage.settle()
    stage.kernel.faults.clear()
    stage.settle()
    record = stage.record()
    assert (2, first.id, State.SNAPSHOTTED) == (record.generation, record.id, record.state)
    stage.check()


def test_the_next_generation_waits_for_a_base_that_can_carry_it(stage: Stage) -> None:
    stage.live()
    stage.byre.command(["sb-1"], Trigger.REMOVE)
    stage.kernel.faults.hook("dm_remove", lambda _: stage.declare())
    stage.kernel.faults.hook("dm_remove", lambda _: void(stage.kernel.replace_file(BASE, 700)))
    stage.once()
    record = stage.record()
    assert (record.generation, record.state) == (1, State.REMOVED)
    stage.kernel.replace_file(BASE, 2 * MIB)
    stage.kernel.faults.clear()
    stage.settle()
    assert (stage.record().generation, stage.record().base.size.count) == (2, 2 * MIB)
    stage.check()


def test_a_start_survives_a_base_that_cannot_be_looked_at(stage: Stage) -> None:
    stage.live()
    stage.kernel.reboot()
    stage.kernel.faults.fail("identify", errno.EACCES)
    stage.restart()
    stage.settle()
    stage.check()


def test_a_paused_disk_is_removed_where_device_mapper_is_gone(stage: Stage) -> None:
    stage.live()
    stage.command(Trigger.PAUSE)
    stage.kernel.host.dm_errno = errno.ENODEV
    assert stage.command(Trigger.REMOVE).state is State.REMOVED
    stage.check_log()
    assert stage.kernel.loops() == ()


def test_a_removal_that_was_done_though_the_call_failed_is_done(stage: Stage) -> None:
    stage.live()
    stage.kernel.faults.fail("dm_remove", errno.EIO, when="after")
    assert stage.command(Trigger.REMOVE).state is State.REMOVED
    stage.check()
    assert "transition.failed remove" not in stage.types()

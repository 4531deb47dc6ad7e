"""A live disk is grown, frozen and thawed before a write of it can fail (simulated kernel)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.guard import FULL_LOOK_S, Guard
from reconciler.kernel.sim import SimCrash, SimKernel
from statemachine.conditions import ConditionType, conditions
from statemachine.machine import Desired, State, Trigger
from statemachine.observed import SnapshotHealth, SnapshotStatus
from statemachine.units import Bytes
from tests.unit.builders import BASE, MIB, Stage

CHUNK = 4096
BIG_BASE = Path("/srv/big.ext4")


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    made.kernel.make_file(BIG_BASE, 8 * MIB, b"base")
    yield made
    made.close()


def small(stage: Stage, name: str = "sb-1", *, cow_max: str | None = None) -> None:
    stage.byre.ensure(name, base=BIG_BASE, cow_size="1MiB", cow_max=cow_max)
    stage.settle()


def write(stage: Stage, chunks: range, name: str = "sb-1") -> None:
    for chunk in chunks:
        stage.kernel.write(stage.record(name).device, chunk * CHUNK, b"y" * CHUNK)


def status(stage: Stage, name: str = "sb-1") -> SnapshotStatus:
    device = stage.kernel.dm(stage.record(name).device_name)
    assert device is not None
    assert device.status is not None
    return device.status


def is_suspended(stage: Stage, name: str = "sb-1") -> bool:
    device = stage.kernel.dm(stage.record(name).device_name)
    assert device is not None
    return device.suspended


def room(stage: Stage, available: int, total: int = 1024 * MIB) -> None:
    """Let so much be free on the only file system."""
    files = stage.kernel.host.tree.root.fs
    files.resize(Bytes(total))
    files.used = (total - available) // CHUNK


class TestGrowing:
    def test_a_small_one_begins_small(self, stage: Stage) -> None:
        small(stage)
        cow = stage.record().cow
        assert cow is not None
        assert cow.size == Bytes(MIB)
        assert status(stage).total.to_bytes() == Bytes(MIB)

    def test_it_is_grown_before_it_is_full_and_takes_a_whole_rewrite(self, stage: Stage) -> None:
        small(stage)
        for begin in range(0, 2048, 64):
            write(stage, range(begin, begin + 64))
            stage.settle()
        assert status(stage).health is SnapshotHealth.VALID
        grown = [event for event in stage.events() if event.type == "cow.grown"]
        assert grown
        assert grown[0].data["from_bytes"] == MIB
        assert grown[-1].data["to_bytes"] <= grown[-1].data["bound_bytes"]
        stage.check()
        stage.check_quiet()

    def test_the_default_is_never_grown(self, stage: Stage) -> None:
        stage.byre.ensure("sb-1", base=BIG_BASE)
        stage.settle()
        write(stage, range(2048))
        stage.settle()
        assert status(stage).health is SnapshotHealth.VALID
        assert "cow.grown" not in stage.types()

    def test_more_that_is_asked_for_is_given_at_once(self, stage: Stage) -> None:
        small(stage)
        stage.byre.ensure("sb-1", base=BIG_BASE, cow_size="4MiB")
        stage.settle()
        assert status(stage).total.to_bytes() == Bytes(4 * MIB)

    def test_it_survives_a_pause(self, stage: Stage) -> None:
        small(stage)
        write(stage, range(200))
        stage.settle()
        size = status(stage).total
        stage.command(Trigger.PAUSE)
        stage.command(Trigger.RESTORE)
        assert status(stage).total == size
        assert stage.kernel.read(stage.record().device, 199 * CHUNK, 1) == b"y"

    @pytest.mark.parametrize("change", [1, 2])
    def test_a_crash_in_between_is_made_good(self, stage: Stage, change: int) -> None:
        small(stage)
        write(stage, range(150))
        stage.kernel.faults.crash_at(stage.kernel.faults.points + change)
        with pytest.raises(SimCrash):
            stage.settle()
        stage.restart()
        stage.settle()
        assert status(stage).total.to_bytes().count > MIB
        assert stage.record().cow is not None
        stage.check()
        stage.check_quiet()


class TestLevels:
    def test_each_level_is_told_once(self, stage: Stage) -> None:
        stage.byre.ensure("sb-1", base=BIG_BASE)
        stage.settle()
        for begin in range(0, 2048, 16):
            write(stage, range(begin, begin + 16))
            stage.settle()
        told = [e.data["percent"] for e in stage.events() if e.type == "cow.threshold_crossed"]
        assert told == [50, 80, 95]
        stage.check_quiet()


class TestBound:
    def test_a_disk_at_its_bound_is_frozen_not_lost(self, stage: Stage) -> None:
        small(stage, cow_max="2MiB")
        begin = 0
        while not is_suspended(stage):
            write(stage, range(begin, begin + 16))
            stage.settle()
            begin += 16
        frozen = stage.record().frozen
        assert frozen is not None
        assert frozen.cause == "cow-bound"
        assert "cow_max" in frozen.message
        assert status(stage).health is SnapshotHealth.VALID
        stage.byre.ensure("sb-1", base=BIG_BASE, cow_size="1MiB", cow_max="8MiB")
        stage.settle()
        assert stage.record().frozen is None
        assert not is_suspended(stage)
        assert stage.types()[-2:] == ["cow.grown", "disk.thawed"]


class TestHostSpace:
    def test_no_new_disk_under_the_low_watermark_and_it_goes_on_by_itself(
        self, stage: Stage
    ) -> None:
        room(stage, 80 * MIB)
        stage.declare()
        stage.once()
        record = stage.record()
        assert record.state is State.ABSENT
        assert record.failure is not None
        assert (record.failure.kind, record.failure.consequence) == ("no-space", "blocked")
        assert "80.0 MiB of 1.0 GiB are free" in record.failure.message
        written = stage.byre.log.last_seq()
        for _ in range(5):
            stage.clock.advance_s(5)
            stage.once()
        assert stage.byre.log.last_seq() == written, "waiting is no event"
        room(stage, 500 * MIB)
        stage.settle()
        stage.check()

    def test_a_paused_disk_may_come_back_while_room_is_only_low(self, stage: Stage) -> None:
        stage.live()
        stage.command(Trigger.PAUSE)
        room(stage, 80 * MIB)
        assert stage.command(Trigger.RESTORE).state is State.RESTORED

    def test_live_disks_are_frozen_under_the_critical_one_and_thawed(self, stage: Stage) -> None:
        stage.live("sb-1")
        stage.live("sb-2")
        room(stage, 20 * MIB)
        stage.settle()
        for name in ("sb-1", "sb-2"):
            assert is_suspended(stage, name)
            record = stage.record(name)
            assert record.frozen is not None
            kinds = [each.type for each in conditions(record) if each.status == "True"]
            assert ConditionType.FROZEN in kinds
            assert ConditionType.READY not in kinds
        stage.check_quiet()
        room(stage, 70 * MIB)  # above critical, below half way to low
        stage.settle()
        assert is_suspended(stage)
        room(stage, 100 * MIB)
        stage.settle()
        assert not is_suspended(stage)
        assert stage.types()[-2:] == ["disk.frozen", "disk.thawed"]
        stage.check()

    def test_a_paused_disk_does_not_come_back_while_room_is_critical(self, stage: Stage) -> None:
        stage.live()
        stage.command(Trigger.PAUSE)
        room(stage, 20 * MIB)
        stage.byre.command(["sb-1"], Trigger.RESTORE)
        stage.once()
        record = stage.record()
        assert record.state is State.PAUSED
        assert record.failure is not None
        assert record.failure.kind == "no-space"

    def test_a_frozen_disk_can_be_paused_and_removed(self, stage: Stage) -> None:
        stage.live("sb-1")
        stage.live("sb-2")
        room(stage, 20 * MIB)
        stage.settle()
        stage.byre.command(["sb-1"], Trigger.PAUSE)
        stage.byre.command(["sb-2"], Trigger.REMOVE)
        stage.settle()
        assert stage.record("sb-1").state is State.PAUSED
        assert stage.record("sb-1").frozen is None
        assert stage.record("sb-2").state is State.REMOVED

    def test_a_frozen_one_that_somebody_resumed_is_frozen_again(self, stage: Stage) -> None:
        stage.live()
        room(stage, 20 * MIB)
        stage.settle()
        device = stage.kernel.dm("byre-sb-1")
        assert device is not None
        stage.kernel.dm_resume(device.uuid)
        stage.settle()
        assert is_suspended(stage)

    def test_a_crash_after_the_suspension_is_told_of_later(self, stage: Stage) -> None:
        stage.live()
        room(stage, 20 * MIB)
        stage.kernel.faults.crash_at(stage.kernel.faults.points + 1)
        with pytest.raises(SimCrash):
            stage.settle()
        stage.restart()
        assert is_suspended(stage)
        stage.settle()
        assert stage.types()[-1] == "disk.frozen"
        room(stage, 500 * MIB)
        stage.settle()
        assert not is_suspended(stage)
        stage.check()

    def test_a_link_is_still_mended_and_the_disk_stays_frozen(self, stage: Stage) -> None:
        link = Path("/srv/vm/sb-1/rootfs.link")
        stage.live(link=link)
        room(stage, 20 * MIB)
        stage.settle()
        stage.kernel.delete(link)
        stage.settle()
        assert stage.kernel.read_link(link).target == "/dev/mapper/byre-sb-1"
        assert is_suspended(stage)


class TestGuard:
    def test_it_wakes_whom_it_concerns_and_nobody_else(self, stage: Stage) -> None:
        woken: list[str] = []
        stage.byre.ensure("sb-2", base=BIG_BASE)
        small(stage)
        guard = Guard(stage.kernel, stage.byre.root.cows, stage.settings, stage.clock, woken.extend)
        guard.update(stage.byre.log.records())
        guard.look()
        assert woken == []
        write(stage, range(150))
        assert guard.look() < 0.1
        assert woken == ["sb-1"]
        woken.clear()
        guard.look()
        assert woken == [], "once for what was written"
        stage.settle()
        guard.update(stage.byre.log.records())
        room(stage, 20 * MIB)
        guard.look()
        assert sorted(woken) == ["sb-1", "sb-2"]
        stage.settle()
        guard.update(stage.byre.log.records())
        woken.clear()
        guard.look()
        assert woken == [], "frozen disks are left in peace"
        room(stage, 500 * MIB)
        guard.look()
        assert woken == ["sb-1", "sb-2"]

    def test_the_last_to_write_are_woken_first(self, stage: Stage) -> None:
        woken: list[str] = []
        for name in ("sb-1", "sb-2", "sb-3"):
            stage.byre.ensure(name, base=BIG_BASE)
        stage.settle()
        guard = Guard(stage.kernel, stage.byre.root.cows, stage.settings, stage.clock, woken.extend)
        guard.update(stage.byre.log.records())
        guard.look()
        write(stage, range(10), "sb-3")
        write(stage, range(5), "sb-2")
        room(stage, 20 * MIB)
        guard.look()
        assert woken == ["sb-3", "sb-2", "sb-1"]

    def test_after_a_rest_it_sees_what_was_written(self, stage: Stage) -> None:
        woken: list[str] = []
        stage.byre.ensure("sb-1", base=BIG_BASE)
        stage.settle()
        guard = Guard(stage.kernel, stage.byre.root.cows, stage.settings, stage.clock, woken.extend)
        guard.update(stage.byre.log.records())
        first_s = guard.look()
        assert [guard.look(), guard.look()] == [first_s, first_s]
        write(stage, range(2048))
        stage.clock.advance_s(FULL_LOOK_S)
        guard.look()
        assert woken == ["sb-1"], "its store passed a fill level"
        guard.look()
        room(stage, 300 * MIB)
        assert guard.look() < first_s

    def test_far_from_the_end_it_looks_seldom(self) -> None:
        kernel = SimKernel()
        stage_free = kernel.free_space(Path("/"))
        assert stage_free.available.count > 2**39


def test_a_disk_wanted_merely_attached_is_no_live_one(stage: Stage) -> None:
    stage.declare(state=Desired.ATTACHED, base=BASE)
    stage.settle()
    room(stage, 20 * MIB)
    stage.settle()
    assert stage.record().frozen is None

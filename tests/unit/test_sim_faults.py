"""SimKernel's own ways: faults, crash points, hooks, reboots, udev, wake-ups, no privileges."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from reconciler.kernel.sim import Call, SimCrash, SimKernel
from reconciler.kernel.sim.faults import ANY_CHANGE
from statemachine.errors import BlockedError, LogDamaged, PermanentError, TransientError
from tests.unit.simdisk import UUID, disk


@pytest.fixture
def sim() -> SimKernel:
    return SimKernel()


class TestFaults:
    def test_a_call_fails_so_often_and_then_works(self, sim: SimKernel) -> None:
        disk(sim)
        sim.faults.fail("dm_remove", errno.EBUSY, times=2)
        for _ in range(2):
            with pytest.raises(TransientError) as raised:
                sim.dm_remove("sb-1", UUID)
            assert raised.value.errno == errno.EBUSY
        assert sim.dm_remove("sb-1", UUID) is True

    def test_it_begins_after_so_many(self, sim: SimKernel) -> None:
        fault = sim.faults.fail("make_folder", errno.ENOSPC, after=1)
        assert sim.make_folder(Path("/a")) is True
        with pytest.raises(BlockedError):
            sim.make_folder(Path("/b"))
        assert sim.make_folder(Path("/b")) is True
        assert fault.hits == 1

    def test_it_can_be_about_one_disk_and_last(self, sim: SimKernel) -> None:
        sim.faults.fail("make_folder", errno.EACCES, times=None, about="sb-7")
        assert sim.make_folder(Path("/sb-1")) is True
        for _ in range(3):
            with pytest.raises(PermanentError):
                sim.make_folder(Path("/sb-7"))

    def test_it_can_come_after_the_deed(self, sim: SimKernel) -> None:
        sim.faults.fail("dm_create", errno.EINTR, when="after")
        with pytest.raises(TransientError):
            sim.dm_create("sb-1", UUID)
        assert sim.dm("sb-1") is not None

    def test_any_change_can_fail_and_no_question_does(self, sim: SimKernel) -> None:
        sim.faults.fail(ANY_CHANGE, errno.EIO)
        assert sim.dm_names() == ()
        with pytest.raises(PermanentError):
            sim.make_folder(Path("/a"))

    def test_an_exception_is_raised_as_it_is(self, sim: SimKernel) -> None:
        sim.faults.fail("boot_id", LogDamaged("as it is"))
        with pytest.raises(LogDamaged):
            sim.boot_id()

    def test_an_error_names_the_call(self, sim: SimKernel) -> None:
        sim.faults.fail("dm_remove", errno.EBUSY)
        with pytest.raises(TransientError, match=r"dm_remove\(sb-1, BYRE-"):
            sim.dm_remove("sb-1", UUID)


class TestCrashes:
    def test_before_nothing_happened(self, sim: SimKernel) -> None:
        sim.faults.crash_at(1, when="before")
        with pytest.raises(SimCrash):
            sim.dm_create("sb-1", UUID)
        sim.faults.revive()
        assert sim.dm("sb-1") is None

    def test_after_it_happened(self, sim: SimKernel) -> None:
        sim.faults.crash_at(1, when="after")
        with pytest.raises(SimCrash):
            sim.dm_create("sb-1", UUID)
        sim.faults.revive()
        assert sim.dm("sb-1") is not None

    def test_the_dead_do_nothing_more(self, sim: SimKernel) -> None:
        sim.faults.crash_at(1)
        with pytest.raises(SimCrash):
            sim.make_folder(Path("/a"))
        assert sim.faults.dead
        for call in (sim.boot_id, lambda: sim.make_folder(Path("/b"))):
            with pytest.raises(SimCrash):
                call()
        sim.faults.revive()
        assert sim.make_folder(Path("/b")) is True

    def test_every_point_of_a_run_can_be_visited(self) -> None:
        clean = SimKernel()
        disk(clean)
        points = clean.faults.points
        assert points == len(clean.faults.changes) == 5
        for point in range(1, points + 1):
            sim = SimKernel()
            sim.faults.crash_at(point)
            with pytest.raises(SimCrash) as raised:
                disk(sim)
            assert raised.value.call.point == point
            assert sim.faults.points == point

    def test_questions_are_no_points(self, sim: SimKernel) -> None:
        sim.faults.crash_at(1)
        assert sim.loops() == ()
        assert sim.faults.points == 0

    def test_a_failing_change_is_one(self, sim: SimKernel) -> None:
        sim.faults.crash_at(1)
        with pytest.raises(SimCrash):
            sim.dm_resume(UUID)

    def test_a_barrier_does_not_catch_it(self) -> None:
        assert not issubclass(SimCrash, Exception)


class TestTraceAndHooks:
    def test_the_last_calls_are_kept_as_many_as_was_said(self) -> None:
        for most, kept in ((0, []), (2, ["loops", "dm_names"])):
            sim = SimKernel(trace_max=most)
            sim.boot_id(), sim.loops(), sim.dm_names()
            assert [call.name for call in sim.trace] == kept
            assert sim.faults.calls == 3

    def test_a_call_is_noted_as_well_when_misfortune_is_set(self, sim: SimKernel) -> None:
        for is_scripted in (False, True):
            if is_scripted:
                sim.faults.fail("loops", errno.EIO)
            sim.make_folder(Path(f"/{is_scripted}"))
            with pytest.raises(PermanentError):
                sim.make_folder(Path("/missing/folder"))
        ended = [(call.number, call.point, call.result, type(call.error)) for call in sim.trace]
        assert ended == [
            (1, 1, True, type(None)),
            (2, 2, None, PermanentError),
            (3, 3, True, type(None)),
            (4, 4, None, PermanentError),
        ]

    def test_calls_are_traced_with_their_ends(self, sim: SimKernel) -> None:
        sim.make_folder(Path("/a"))
        sim.boot_id()
        with pytest.raises(TransientError):
            sim.dm_suspend(UUID)
        made, asked, failed = sim.trace
        assert (made.name, made.args, made.result) == ("make_folder", (Path("/a"),), True)
        assert (asked.is_change, asked.result) == (False, sim.host.boot_id)
        assert isinstance(failed.error, TransientError)
        assert [call.name for call in sim.faults.changes] == ["make_folder", "dm_suspend"]

    def test_somebody_can_come_between(self, sim: SimKernel) -> None:
        disk(sim)
        sim.faults.hook("dm_remove", lambda _: sim.remove_dm_by_hand("sb-1"))
        assert sim.dm_remove("sb-1", UUID) is False

    def test_a_hook_after_sees_the_result(self, sim: SimKernel) -> None:
        seen: list[Call] = []
        sim.faults.hook(ANY_CHANGE, seen.append, when="after", about="/b")
        sim.make_folder(Path("/a"))
        sim.make_folder(Path("/b"))
        assert [call.result for call in seen] == [True]

    def test_a_hook_may_block_while_others_work(self, sim: SimKernel) -> None:
        gate, waiting = threading.Event(), threading.Event()

        def block(_: Call) -> None:
            waiting.set()
            gate.wait(10)

        sim.faults.hook("make_folder", block, about="/slow")
        thread = threading.Thread(target=sim.make_folder, args=(Path("/slow"),))
        thread.start()
        assert waiting.wait(10)
        assert sim.make_folder(Path("/fast")) is True
        gate.set()
        thread.join(10)
        assert sim.list_folder(Path("/")) == ("dev", "fast", "slow")

    def test_clear_starts_anew(self, sim: SimKernel) -> None:
        sim.faults.fail("make_folder", errno.EIO)
        sim.faults.crash_at(1)
        sim.faults.clear()
        assert sim.make_folder(Path("/a")) is True
        assert (sim.faults.points, len(sim.trace)) == (1, 1)

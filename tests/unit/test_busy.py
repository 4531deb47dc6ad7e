"""A disk in use: waited for, named, given up where the spec says so, and never thrown off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler import busy
from reconciler.config import Settings
from reconciler.kernel.sim import SimKernel
from reconciler.kernel.sim.users import Handle
from statemachine.machine import State, Trigger
from statemachine.observed import Holder, LinkKind
from statemachine.plight import Failure
from statemachine.spec import OnBusy
from tests.unit.builders import BASE, LINK, Stage

QEMU = Holder(kind="process", name="qemu", pid=41)
MOUNT = Holder(kind="mount", name="/mnt/a")
PASSES = 50


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def held(
    stage: Stage,
    *holders: Holder,
    trigger: Trigger = Trigger.PAUSE,
    on_busy: OnBusy = OnBusy.WAIT,
    timeout_s: float = 30.0,
) -> list[Handle]:
    """Have a live disk, open, asked to go away, and looked at once."""
    stage.byre.ensure("sb-1", base=BASE, link=LINK, on_busy=on_busy, busy_timeout_s=timeout_s)
    stage.settle()
    device = stage.record().device
    handles = [stage.kernel.open(device, holder=each) for each in holders]
    stage.byre.command(["sb-1"], trigger)
    stage.once()
    return handles


def failure_of(stage: Stage) -> Failure:
    failure = stage.record().failure
    assert failure is not None
    return failure


def look_for(stage: Stage, seconds: float) -> None:
    """Make passes while time goes by, as a daemon without watchers does."""
    end_s = stage.clock.monotonic_s() + seconds
    for _ in range(PASSES):
        again_s = stage.reconciler.reconcile("sb-1").again_s
        left_s = end_s - stage.clock.monotonic_s()
        if again_s is None or left_s <= 0:
            stage.clock.advance_s(max(left_s, 0.0))
            return
        stage.clock.advance_s(min(again_s, left_s))


@pytest.mark.parametrize(("trigger", "times"), [(Trigger.PAUSE, 1), (Trigger.REMOVE, 0)])
def test_what_is_to_be_paused_is_written_out_while_it_is_waited_for_and_once(
    stage: Stage, trigger: Trigger, times: int
) -> None:
    held(stage, QEMU, trigger=trigger)
    look_for(stage, 20.0)
    calls = [call.name for call in stage.kernel.trace]
    assert calls.count("flush_ahead") == times


@pytest.mark.parametrize("trigger", [Trigger.PAUSE, Trigger.REMOVE])
def test_waiting_writes_nothing_and_touches_nothing(stage: Stage, trigger: Trigger) -> None:
    held(stage, QEMU, MOUNT, trigger=trigger, timeout_s=3600)
    failure = failure_of(stage)
    assert (failure.consequence, failure.kind, failure.overdue) == ("blocked", "in-use", False)
    assert failure.holders == ("process qemu (pid 41)", "mount /mnt/a")
    last = stage.events()[-1]
    assert ("transition.failed", list(failure.holders)) == (last.type, last.data["holders"])
    points = stage.kernel.faults.points
    look_for(stage, 100.0)
    assert (last.seq, points) == (stage.byre.log.last_seq(), stage.kernel.faults.points)
    assert stage.kernel.read_link(LINK).kind is LinkKind.SYMLINK


def test_it_goes_on_when_the_last_of_several_lets_go(stage: Stage) -> None:
    first, second = held(stage, QEMU, MOUNT)
    first.close()
    settled = stage.reconciler.reconcile("sb-1")
    assert settled.held is not None
    assert settled.held.holders == (MOUNT,)
    assert "in use by mount /mnt/a" in settled.why
    second.close()
    assert State.PAUSED is stage.once().state
    stage.check()


def test_given_up_is_an_event_that_names_the_holders_and_leaves_the_disk(stage: Stage) -> None:
    held(stage, QEMU, on_busy=OnBusy.FAIL)
    seq = stage.byre.log.last_seq()
    look_for(stage, 31.0)
    failure = failure_of(stage)
    assert (
        failure.consequence, failure.kind, failure.retry_at, failure.exit_code
    ) == ("permanent", "in-use", None, 1)  # fmt: skip
    assert failure.message == (
        "/dev/mapper/byre-sb-1 is in use by process qemu (pid 41), longer than 30 s: "
        "given up (on_busy is fail)"
    )
    assert "byre retry sb-1" in failure.hint
    assert (failure.overdue, failure.holders) == (True, ("process qemu (pid 41)",))
    assert seq + 1 == stage.byre.log.last_seq()
    assert State.SNAPSHOTTED is stage.record().state
    assert stage.kernel.read_link(LINK).kind is LinkKind.SYMLINK


def test_the_deadline_counts_from_the_first_look_also_over_a_restart(stage: Stage) -> None:
    held(stage, QEMU, on_busy=OnBusy.FAIL)
    since = failure_of(stage).since
    look_for(stage, 20.0)
    stage.restart()
    look_for(stage, 9.0)
    assert ("blocked", since) == (failure_of(stage).consequence, failure_of(stage).since)
    look_for(stage, 2.0)
    assert ("permanent", since) == (failure_of(stage).consequence, failure_of(stage).since)


def test_no_time_at_all_gives_up_at_the_first_look(stage: Stage) -> None:
    held(stage, QEMU, on_busy=OnBusy.FAIL, timeout_s=0)
    assert failure_of(stage).consequence == "permanent"
    assert stage.types()[-1] == "transition.failed pause"


def test_what_was_given_up_stays_so_when_the_holder_lets_go(stage: Stage) -> None:
    [handle] = held(stage, QEMU, on_busy=OnBusy.FAIL)
    look_for(stage, 31.0)
    handle.close()
    assert stage.reconciler.reconcile("sb-1").again_s is None
    assert State.SNAPSHOTTED is stage.record().state


@pytest.mark.parametrize("again", ["retry", "command"])
def test_asking_again_begins_anew(stage: Stage, again: str) -> None:
    [handle] = held(stage, QEMU, on_busy=OnBusy.FAIL)
    look_for(stage, 31.0)
    begun = stage.clock.now_ns()
    if again == "retry":
        stage.byre.retry(["sb-1"])
    else:
        [answer] = stage.byre.command(["sb-1"], Trigger.PAUSE)
        assert answer.changed
    stage.once()
    assert failure_of(stage).consequence == "blocked"
    assert failure_of(stage).since >= begun
    handle.close()
    stage.settle()
    stage.check()


def test_asking_again_while_it_waits_is_nothing_new(stage: Stage) -> None:
    held(stage, QEMU)
    [answer] = stage.byre.command(["sb-1"], Trigger.PAUSE)
    assert not answer.changed


def test_one_who_waits_on_is_told_once_that_it_takes_long(stage: Stage) -> None:
    [handle] = held(stage, QEMU)
    seq = stage.byre.log.last_seq()
    look_for(stage, 31.0)
    failure = failure_of(stage)
    assert (failure.consequence, failure.overdue) == ("blocked", True)
    assert failure.message.endswith("in use by process qemu (pid 41), longer than 30 s")
    look_for(stage, 100.0)
    assert seq + 1 == stage.byre.log.last_seq()
    handle.close()
    stage.settle()
    stage.check()


def test_a_removal_after_a_pause_in_vain_has_its_own_time(stage: Stage) -> None:
    held(stage, QEMU, on_busy=OnBusy.FAIL)
    look_for(stage, 20.0)
    stage.byre.command(["sb-1"], Trigger.REMOVE)
    look_for(stage, 20.0)
    failure = failure_of(stage)
    assert (failure.trigger, failure.consequence) == (Trigger.REMOVE, "blocked")
    look_for(stage, 11.0)
    assert failure_of(stage).consequence == "permanent"


def test_another_spec_decides_anew(stage: Stage) -> None:
    held(stage, QEMU, on_busy=OnBusy.FAIL)
    look_for(stage, 31.0)
    spec = stage.record().wanted
    stage.byre.ensure("sb-1", base=spec.base, state=spec.state, link=LINK)
    stage.once()
    assert failure_of(stage).consequence == "blocked"


def test_a_held_device_that_nobody_is_known_to_hold_is_in_use_after_some_tries(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.kernel, "holders", lambda _device: ())
    [handle] = held(stage, QEMU, timeout_s=3600)
    look_for(stage, 25.0)
    failure = failure_of(stage)
    assert (failure.consequence, failure.kind, failure.holders) == ("blocked", "in-use", ())
    assert "somebody who cannot be named" in failure.message
    seq = stage.byre.log.last_seq()
    look_for(stage, 20.0)
    assert seq == stage.byre.log.last_seq(), "its link is not taken away and put back for ever"
    handle.close()
    stage.settle()
    stage.check()


def test_a_holder_that_is_still_being_closed_is_waited_for_without_a_try(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    [handle] = held(stage, QEMU)
    seq = stage.byre.log.last_seq()
    monkeypatch.setattr(stage.kernel, "holders", lambda _device: ())
    assert stage.reconciler.reconcile("sb-1").held is not None
    assert seq == stage.byre.log.last_seq()
    handle.close()
    assert State.PAUSED is stage.once().state


def test_a_clone_on_a_loop_is_waited_for_by_its_holders_names(folder: Path) -> None:
    kernel = SimKernel()
    kernel.host.dm_errno = 19  # ENODEV
    stage = Stage(folder, kernel=kernel)
    [handle] = held(stage, QEMU)
    failure = failure_of(stage)
    assert (stage.record().driver, failure.kind) == ("clone", "in-use")
    assert failure.holders == ("process qemu (pid 41)",)
    handle.close()
    assert State.PAUSED is stage.once().state
    stage.check()
    stage.close()


@pytest.mark.parametrize(
    ("waited_s", "expected_s"), [(0, 1), (4, 1), (20, 5), (39, 9.75), (55, 5), (70, 10), (7000, 10)]
)
def test_the_poll_slows_down_and_is_there_at_the_deadline(
    stage: Stage, waited_s: float, expected_s: float
) -> None:
    stage.declare()
    assert expected_s == busy.poll_s(stage.record(), waited_s, Settings())


def test_a_poll_that_is_slow_already_does_not_get_faster(stage: Stage) -> None:
    stage.byre.ensure("sb-1", base=BASE, busy_timeout_s=86_400)
    settings = Settings(blocked_poll_s=3600, blocked_poll_cap_s=10)
    assert busy.poll_s(stage.record(), 5.0, settings) == 3600

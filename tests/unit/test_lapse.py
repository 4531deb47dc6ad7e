"""A disk's time ends, or nobody writes to it: what is wanted then, and what a restart knows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from reconciler import lapse
from reconciler.kernel.sim import SimCrash
from reconciler.reconcile import Settled
from reconciler.specs import Sourced
from statemachine.errors import RefusedError, SpecError
from statemachine.lifetime import OnExpiry, moment_text
from statemachine.machine import Desired, State, Trigger
from statemachine.observed import Holder
from statemachine.plight import Held
from statemachine.spec import OnBusy
from statemachine.specreader import parse
from tests.unit.builders import BASE, Stage

HOUR_S = 3600
VMM = Holder(kind="process", name="vmm", pid=7)


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def live(stage: Stage, **lifetime: Any) -> None:  # noqa: ANN401 - fields of the spec
    stage.byre.ensure("sb-1", base=BASE, **lifetime)
    stage.settle()


def stands(stage: Stage, **fields: object) -> bool:
    """Apply a spec as a spec folder does; tell whether anything new was recorded."""
    table = {"name": "sb-1", "base": str(BASE), **fields}
    [spec] = parse({"disk": [table]}, source="disks.toml", folder=Path("/"))
    [declared] = stage.byre.apply([Sourced("disks.toml", spec)])
    return declared.changed


def later(stage: Stage, seconds: float) -> State:
    stage.clock.advance_s(seconds)
    stage.settle()
    return stage.record().state


def look(stage: Stage) -> Settled:
    return stage.reconciler.reconcile("sb-1")


@pytest.mark.parametrize(
    ("on_expiry", "expected"), [("pause", State.PAUSED), ("remove", State.REMOVED)]
)
def test_a_disk_is_paused_or_removed_when_its_time_is_over(
    stage: Stage, on_expiry: str, expected: State
) -> None:
    live(stage, ttl="2h", on_expiry=OnExpiry(on_expiry))
    assert State.SNAPSHOTTED is later(stage, 2 * HOUR_S - 60)
    assert expected is later(stage, 61)
    stage.check()
    stage.check_quiet()
    [event] = [each for each in stage.events() if each.data.get("why") == "expired"]
    assert (event.actor, event.type) == ("reconciler", "disk.declared")


def test_a_pass_says_when_to_look_again_and_a_restart_says_the_same(stage: Stage) -> None:
    live(stage, ttl="90m")
    stage.clock.advance_s(HOUR_S)
    left_s = look(stage).lapses_s
    assert left_s == pytest.approx(1800, abs=2)
    stage.restart()
    assert look(stage).lapses_s == pytest.approx(1800, abs=2)
    stage.byre.close()
    stage.clock.advance_s(HOUR_S)
    stage.restart()
    stage.settle()
    assert stage.record().state is State.PAUSED


def test_a_stalled_disk_is_woken_at_its_end_as_well(stage: Stage) -> None:
    stage.byre.ensure("sb-1", base=BASE, ttl="1h", link="/srv/vm/taken")
    stage.kernel.make_file(Path("/srv/vm/taken"), 512, b"somebody's")
    stage.settle()
    failure = stage.record().failure
    assert failure is not None
    assert failure.retry_at is None
    assert look(stage).lapses_s == pytest.approx(HOUR_S, abs=5)


def test_the_default_keeps_the_data(stage: Stage) -> None:
    live(stage, ttl="1h")
    stage.kernel.write(stage.record().device, 4096, b"kept")
    later(stage, HOUR_S)
    stage.byre.extend(["sb-1"])
    restored = stage.command(Trigger.RESTORE)
    assert stage.kernel.read(restored.device, 4096, 4) == b"kept"


def test_the_same_spec_again_extends_nothing_and_another_ttl_counts_from_now(stage: Stage) -> None:
    live(stage, ttl="2h")
    end = stage.record().expires_at
    stage.clock.advance_s(HOUR_S)
    assert not stands(stage, ttl="2h")
    assert end == stage.record().expires_at
    assert stands(stage, ttl="3h")
    extended = stage.record().expires_at
    assert extended is not None
    assert end is not None
    assert pytest.approx((extended - end) / 1e9, abs=5) == 2 * HOUR_S
    assert stands(stage)
    assert stage.record().expires_at is None


def test_another_field_leaves_the_end_as_it_was(stage: Stage) -> None:
    live(stage, ttl="2h")
    end = stage.record().expires_at
    stage.clock.advance_s(HOUR_S)
    assert stands(stage, ttl="2h", busy_timeout_s=5)
    assert end == stage.record().expires_at


@pytest.mark.parametrize("on_expiry", ["pause", "remove"])
def test_what_has_lapsed_is_not_brought_back_by_the_same_spec(stage: Stage, on_expiry: str) -> None:
    fields = {"ttl": "1h", "on_expiry": on_expiry}
    assert stands(stage, **fields)
    stage.settle()
    ended = later(stage, HOUR_S)
    assert not stands(stage, **fields)
    assert ended is later(stage, 1)
    assert stands(stage, **fields | {"ttl": "2h"})
    assert later(stage, 1) in (State.RESTORED, State.SNAPSHOTTED)


@pytest.mark.parametrize("on_expiry", list(OnExpiry))
def test_a_disk_that_is_created_again_has_its_whole_time_again(
    stage: Stage, on_expiry: OnExpiry
) -> None:
    live(stage, ttl="1h", on_expiry=on_expiry)
    later(stage, HOUR_S)
    live(stage, ttl="1h", on_expiry=on_expiry)
    assert stage.record().state in (State.RESTORED, State.SNAPSHOTTED)
    assert look(stage).lapses_s == pytest.approx(HOUR_S, abs=5)


def test_a_restored_disk_has_its_ttl_again_and_one_with_a_fixed_end_is_refused(
    stage: Stage,
) -> None:
    live(stage, ttl="1h")
    later(stage, HOUR_S)
    assert stage.command(Trigger.RESTORE).state is State.RESTORED
    assert look(stage).lapses_s == pytest.approx(HOUR_S, abs=5)
    end = moment_text(stage.clock.now_ns() + 10**10)
    stage.byre.extend(["sb-1"], expires_at=end)
    assert State.PAUSED is later(stage, 11)
    with pytest.raises(RefusedError, match=f"was over at {end}") as caught:
        stage.byre.command(["sb-1"], Trigger.RESTORE)
    assert caught.value.exit_code == 4
    assert "byre extend sb-1" in caught.value.hint


def test_a_new_disk_for_a_time_that_is_over_is_refused_and_a_standing_one_left(
    stage: Stage,
) -> None:
    over = "2001-01-01T00:00:00Z"
    with pytest.raises(SpecError, match="field 'expires_at': found '2001-01-01T00:00:00Z'"):
        stage.byre.ensure("sb-1", base=BASE, expires_at=over)
    assert not stands(stage, expires_at=over)
    assert stage.byre.log.record("sb-1") is None


def test_an_end_is_given_with_the_same_ttl_and_only_where_there_is_something_to_end(
    stage: Stage,
) -> None:
    live(stage, ttl="1h")
    stage.clock.advance_s(HOUR_S / 2)
    [declared] = stage.byre.extend(["sb-1"], ttl="1h")
    assert declared.changed
    assert look(stage).lapses_s == pytest.approx(HOUR_S, abs=5)
    stage.byre.extend(["sb-1"])
    assert look(stage).lapses_s is None
    [declared] = stage.byre.extend(["sb-1"])
    assert not declared.changed
    stage.command(Trigger.REMOVE)
    with pytest.raises(RefusedError, match="removed"):
        stage.byre.extend(["sb-1"], ttl="1h")


@pytest.mark.parametrize("on_busy", list(OnBusy))
def test_a_disk_in_use_at_its_end_goes_by_the_rules_for_that(stage: Stage, on_busy: OnBusy) -> None:
    live(stage, ttl="1h", on_busy=on_busy, busy_timeout_s=5)
    stage.kernel.open(stage.record().device, holder=VMM)
    stage.clock.advance_s(HOUR_S)
    for _ in range(40):
        again_s = look(stage).again_s
        if again_s is None:
            break
        stage.clock.advance_s(again_s)
    failure = stage.record().failure
    assert failure is not None
    assert (stage.record().state, failure.kind) == (State.SNAPSHOTTED, "in-use")
    assert failure.overdue
    assert {OnBusy.WAIT: "blocked", OnBusy.FAIL: "permanent"}[on_busy] == failure.consequence


def test_a_disk_is_idle_when_nobody_wrote_for_so_long_and_nobody_has_it_open(stage: Stage) -> None:
    live(stage, idle_pause="10m")
    stage.clock.advance_s(500)
    stage.kernel.write(stage.record().device, 0, b"still at it")
    stage.clock.advance_s(500)
    assert 99 < (look(stage).lapses_s or 0) < 101
    opened = stage.kernel.open(stage.record().device, holder=VMM)
    stage.clock.advance_s(101)
    assert look(stage).lapses_s == 600
    assert stage.record().desired is Desired.LIVE
    opened.close()
    assert State.PAUSED is later(stage, 600)
    assert not stands(stage, idle_pause="10m")
    assert stage.command(Trigger.RESTORE).state is State.RESTORED
    assert 599 < (look(stage).lapses_s or 0) <= 600
    [event] = [each for each in stage.events() if each.data.get("why") == "idle"]
    assert event.actor == "reconciler"


def test_a_disk_is_never_idle_unless_its_spec_says_when(stage: Stage) -> None:
    live(stage)
    assert look(stage).lapses_s is None
    assert State.SNAPSHOTTED is later(stage, 7 * 86_400)


def test_a_far_end_is_looked_for_day_by_day(stage: Stage) -> None:
    live(stage, ttl="20d", idle_pause="30d")
    assert look(stage).lapses_s == 86_400
    later(stage, 7 * 86_400)
    later(stage, 7 * 86_400)
    assert State.SNAPSHOTTED is later(stage, 5 * 86_400)
    assert State.PAUSED is later(stage, 86_400)


@pytest.mark.parametrize("on_expiry", list(OnExpiry))
def test_dying_anywhere_while_a_disk_expires_comes_to_the_same_end(
    folder: Path, on_expiry: OnExpiry
) -> None:
    for point in itertools.count(1):
        (folder / str(point)).mkdir()
        stage = Stage(folder / str(point))
        live(stage, ttl="1h", on_expiry=on_expiry)
        stage.clock.advance_s(HOUR_S)
        faults = stage.kernel.faults
        faults.crash_at_call(faults.calls + point, when="after")
        try:
            stage.settle()
            died = False
        except SimCrash:
            died = True
        faults.clear()
        stage.restart()
        stage.settle()
        stage.check()
        assert [each.data.get("why") for each in stage.events()].count("expired") == 1
        stage.close()
        if not died:
            return


def test_a_throwaway_disk_cannot_be_paused_and_is_removed_at_its_end(stage: Stage) -> None:
    live(stage, ttl="1h", persistent=False)
    assert State.REMOVED is later(stage, HOUR_S)
    with pytest.raises(SpecError, match="'on_expiry': found 'pause'; allowed: remove with"):
        live(stage, ttl="1h", persistent=False, on_expiry=OnExpiry.PAUSE)
    with pytest.raises(SpecError, match="'idle_pause': found '1h'; allowed: nothing with"):
        live(stage, idle_pause="1h", persistent=False)


def test_a_disk_that_goes_back_to_a_point_has_its_time_again(stage: Stage) -> None:
    live(stage, ttl="1h")
    stage.byre.checkpoint("sb-1", "clean")
    assert State.PAUSED is later(stage, HOUR_S)
    stage.byre.go_back("sb-1", "clean")
    stage.settle()
    assert stage.record().desired is Desired.LIVE
    assert look(stage).lapses_s == pytest.approx(HOUR_S, abs=5)
    stage.byre.extend(["sb-1"], expires_at=moment_text(stage.clock.now_ns() + 10**10))
    assert State.PAUSED is later(stage, 11)
    with pytest.raises(RefusedError, match="was over at"):
        stage.byre.go_back("sb-1", "clean")


def test_a_disk_that_is_held_back_does_not_lapse(stage: Stage) -> None:
    live(stage, ttl="1h")
    stage.clock.advance_s(HOUR_S)
    record, now_ns = stage.record(), stage.clock.now_ns()
    held = attrs.evolve(record, held=Held(message="an older log was put back", since=now_ns))
    assert (lapse.is_expired(record, now_ns), lapse.is_expired(held, now_ns)) == (True, False)

"""One reconciler per root, by a lock that ends with its holder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.clock import FakeClock
from reconciler.lock import RootLock
from statemachine.errors import LogUnavailable, RootBusy


def test_a_second_one_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "reconciler.lock"
    with RootLock(path), pytest.raises(RootBusy, match=f"pid {os.getpid()}") as caught:
        RootLock(path).acquire()
    assert caught.value.exit_code == 1
    with RootLock(path) as lock:
        assert lock.is_held


def test_giving_it_back_twice_is_harmless(tmp_path: Path) -> None:
    lock = RootLock(tmp_path / "reconciler.lock")
    lock.acquire()
    lock.release()
    lock.release()
    assert not lock.is_held


def test_a_symlink_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "reconciler.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LogUnavailable):
        RootLock(tmp_path / "reconciler.lock").acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_a_root_that_is_missing_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable):
        RootLock(tmp_path / "missing" / "reconciler.lock").acquire()


def test_who_stays_is_not_waited_for(tmp_path: Path) -> None:
    path, clock = tmp_path / "reconciler.lock", FakeClock(autojump=True)
    first = RootLock(path)
    first.take_over(clock, stays=True)
    with pytest.raises(RootBusy):
        RootLock(path).take_over(clock, stays=True)
    assert clock.monotonic_s() == 0
    first.release()
    RootLock(path).take_over(clock, stays=True)


def test_who_does_not_give_way_is_waited_for_within_a_bound(tmp_path: Path) -> None:
    path, clock = tmp_path / "reconciler.lock", FakeClock(autojump=True)
    with RootLock(path), pytest.raises(RootBusy):
        RootLock(path).take_over(clock, stays=True, patience_s=7.0)
    assert 7.0 <= clock.monotonic_s() < 8.0
    assert not RootLock(path).is_wanted


def test_nobody_else_takes_a_lock_that_a_reconciler_waits_for(tmp_path: Path) -> None:
    path = tmp_path / "reconciler.lock"
    holder, asked = RootLock(path), []
    assert holder.try_acquire()

    class Giving(FakeClock):
        def sleep_s(self, duration_s: float) -> None:
            asked.append((holder.is_wanted, RootLock(path).try_acquire()))
            holder.release()
            asked.append((holder.is_wanted, RootLock(path).try_acquire()))
            super().sleep_s(duration_s)

    lock = RootLock(path)
    lock.take_over(Giving(autojump=True), stays=True)
    assert lock.is_held
    assert asked == [(True, False), (True, False)]

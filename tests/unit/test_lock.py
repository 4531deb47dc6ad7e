"""One reconciler per root, by a lock that ends with its holder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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

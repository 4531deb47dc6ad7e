"""The reserve is real, made only where there is plenty, and given up for good when it is needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from statemachine.eventlog import EventLog
from statemachine.reserve import Reserve

SIZE = 256 * 1024
TOO_MUCH = 2**60


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "reserve"


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_it_has_blocks_of_its_own(path: Path) -> None:
    reserve = Reserve(path, size_bytes=SIZE)
    assert (reserve.keep(), reserve.keep(), reserve.is_there) == (True, True, True)
    assert allocated(path) >= SIZE
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_is_given_up_once_and_made_again(path: Path) -> None:
    reserve = Reserve(path, size_bytes=SIZE)
    reserve.keep()
    assert (reserve.give_up(), reserve.give_up(), path.exists()) == (True, False, False)
    assert reserve.keep()


def test_without_plenty_of_room_it_is_not_made(path: Path) -> None:
    reserve = Reserve(path, size_bytes=TOO_MUCH)
    assert (reserve.keep(), reserve.is_there, path.exists()) == (False, False, False)


def test_half_of_one_is_made_whole(path: Path) -> None:
    path.write_bytes(b"x" * 100)
    os.truncate(path, SIZE)
    reserve = Reserve(path, size_bytes=SIZE)
    assert not reserve.is_there
    assert reserve.keep()
    assert allocated(path) >= SIZE


def test_none_is_kept_where_none_is_wanted(path: Path) -> None:
    reserve = Reserve(path, size_bytes=0)
    assert (reserve.keep(), reserve.give_up(), path.exists()) == (False, False, False)


def test_a_place_that_cannot_be_written_is_done_without(path: Path) -> None:
    reserve = Reserve(path / "missing" / "reserve", size_bytes=SIZE)
    assert (reserve.keep(), reserve.give_up(), reserve.is_there) == (False, False, False)
    path.mkdir()
    taken = Reserve(path, size_bytes=SIZE)
    assert (taken.keep(), taken.give_up()) == (False, False)


def test_a_symlink_in_its_place_is_not_followed(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))
    assert not Reserve(path, size_bytes=SIZE).keep()
    assert not path.with_name("elsewhere").exists()


def test_a_log_has_one_when_it_is_open_for_writing(folder: Path) -> None:
    with EventLog(folder / "byre.db", reserve_bytes=SIZE):
        assert allocated(folder / "reserve") >= SIZE
    (folder / "reserve").unlink()
    with EventLog(folder / "byre.db", read_only=True, reserve_bytes=SIZE):
        assert not (folder / "reserve").exists()

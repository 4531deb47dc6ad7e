"""The note of the newest event: behind it may be, ahead of the log it is damage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from statemachine import history
from statemachine.errors import LogDamaged
from statemachine.eventlog import EventLog
from statemachine.head import Head, Noted
from statemachine.logreader import LogReader
from tests.unit.events_made import host_event


@pytest.fixture
def path(folder: Path) -> Path:
    """A closed log of three events."""
    made = folder / "byre.db"
    with EventLog(made) as log:
        for _ in range(3):
            log.append([host_event()])
    return made


def test_the_newest_acknowledged_event_is_noted(path: Path) -> None:
    with EventLog(path, read_only=True) as log:
        newest = list(log.events())[-1]
    head = path.with_name("head")
    assert head.read_text() == f"00000000000000000003 {newest.hash}\n"
    assert head.stat().st_mode & 0o777 == 0o600


def test_a_note_that_is_behind_is_as_good(path: Path) -> None:
    with EventLog(path) as log:
        first = next(log.events())
        log.head.note(Noted(first.seq, first.hash))
    with EventLog(path) as log:
        history.prove(log)
        log.append([host_event()])
        assert log.head.read() == Noted(4, list(log.events())[-1].hash)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "3", "00000000000000000009 zz\n", "x" * 86, "00000000000000000009 " + "a" * 9],
)
def test_a_note_that_cannot_be_read_counts_as_none(path: Path, text: str) -> None:
    path.with_name("head").write_text(text)
    with EventLog(path) as log:
        assert log.head.read() is None
        log.append([host_event()])
        assert log.head.read() is not None


@pytest.mark.parametrize("seq", [2, 3, 4])
@pytest.mark.parametrize("read_only", [False, True])
def test_an_event_that_is_noted_and_not_there_is_damage(
    path: Path, seq: int, *, read_only: bool
) -> None:
    Head(path.with_name("head")).note(Noted(seq, "0" * 64))
    with pytest.raises(LogDamaged) as caught:
        EventLog(path, read_only=read_only)
    assert caught.value.seq == seq
    with LogReader(path, lenient=True) as log, pytest.raises(LogDamaged) as found:
        history.verify(log)
    assert found.value.message == caught.value.message


def test_a_commit_is_none_the_worse_for_a_note_that_cannot_be_written(path: Path) -> None:
    path.with_name("head").unlink()
    path.with_name("head").mkdir()
    with EventLog(path) as log:
        [event] = log.append([host_event()])
        assert event.seq == 4


def test_a_head_that_is_kept_open_is_noted_as_well_and_made_again_where_it_is_gone(
    path: Path,
) -> None:
    head = Head.of(path)
    with head.kept_open():
        for seq in (7, 8):
            head.note(Noted(seq, "a" * 64))
            assert head.read() == Noted(seq, "a" * 64)
        head.path.unlink()
        head.note(Noted(9, "b" * 64))
        assert head.read() == Noted(9, "b" * 64)
        assert _open_files(head.path) == 1
    assert _open_files(head.path) == 0
    head.note(Noted(10, "c" * 64))
    assert head.read() == Noted(10, "c" * 64)


def _open_files(path: Path) -> int:
    links = Path("/proc/self/fd").iterdir()
    return sum(os.path.realpath(link) == os.path.realpath(path) for link in links)

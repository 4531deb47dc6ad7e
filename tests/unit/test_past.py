"""A log with its archives is one history: the same events for every question as before."""

from __future__ import annotations

import lzma
import shutil
import sqlite3
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.bench import story
from statemachine import archive, checkpoints, retention
from statemachine.archive import Archive
from statemachine.errors import LogDamaged, UsageError
from statemachine.eventlog import EventLog
from statemachine.events import Event
from statemachine.past import Past
from statemachine.payloads import Requester
from statemachine.questions import Question, fits
from tests.unit.events_made import declaration

BY = Requester(uid=0, user="root", pid=1, command="test")
EVENTS, DISKS, CUTS = 300, 4, (90, 180)


@attrs.frozen
class Archived:
    """A log whose oldest events are in two archives, and all that there ever were."""

    log: Path
    files: tuple[Path, ...]
    whole: list[Event]


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Archived:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("archived")
    files = []
    with EventLog(folder / "byre.db") as log, pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "EVENTS_BETWEEN", 70)
        patch.setattr(story, "EVENTS_AT_ONCE", 20)
        patch.setattr(archive, "BLOCK_EVENTS", 17)
        story.write(log, events=EVENTS, disks=DISKS)
        whole = list(log.events())
        for cut in CUTS:
            files.append(folder / f"to-{cut}")
            [event] = log.select("WHERE seq = ?", cut)
            retention.archive_before(log, event.at + 1, files[-1], by=BY)
        whole += log.select("WHERE seq > ? ORDER BY seq", whole[-1].seq)
    return Archived(folder / "byre.db", tuple(files), whole)


def asked(given: Archived, question: Question, *files: Path) -> list[int]:
    with EventLog(given.log, read_only=True) as log, Past(log, files) as past:
        return [event.seq for event in past.search(question)]


seqs = st.integers(0, EVENTS + 10)
questions = st.builds(
    Question,
    disk=st.sampled_from([None, "sb-000000", "sb-000003", "none-such"]),
    type=st.sampled_from([None, "transition", "disk.declared", "log.archived"]),
    actor=st.sampled_from([None, "ops", "reconciler", "uid:1000"]),
    outcome=st.sampled_from([None, "completed", "failed"]),
    text=st.sampled_from([None, "busy", "ubuntu"]),
    after=seqs,
    before=st.none() | seqs,
    newest_first=st.booleans(),
)


@given(question=questions, between=st.tuples(seqs, seqs), timed=st.booleans())
def test_every_question_finds_what_it_found_before_anything_was_archived(
    archived: Archived, question: Question, between: tuple[int, int], *, timed: bool
) -> None:
    if timed:
        low, high = (archived.whole[min(each, len(archived.whole) - 1)].at for each in between)
        question = attrs.evolve(question, since=low, until=high)
    wanted = [event.seq for event in archived.whole if fits(question, event)]
    wanted.sort(reverse=question.newest_first)
    assert wanted == asked(archived, question, *archived.files)


def test_the_order_in_which_archives_are_named_does_not_matter(archived: Archived) -> None:
    every = [event.seq for event in archived.whole]
    assert every == asked(archived, Question(), *reversed(archived.files))
    assert every[::-1] == asked(archived, Question(newest_first=True), *archived.files)


def test_a_block_that_no_bound_lets_in_is_not_opened(
    archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bytes] = []
    real = lzma.decompress

    def noted(packed: bytes) -> bytes:
        opened.append(packed)
        return real(packed)

    monkeypatch.setattr("statemachine.archive.lzma.decompress", noted)
    early = archived.whole[3].at
    with Archive(archived.files[0]) as looked:
        assert [event.seq for event in looked.events(after=20, until=30)] == list(range(21, 31))
        assert len(opened) == 1
        assert [event.seq for event in looked.events(earlier_than=early)] == list(range(1, 18))
        assert len(opened) == 2


def test_a_gap_between_archives_is_refused_and_both_files_are_named(archived: Archived) -> None:
    first, second = archived.files
    with pytest.raises(UsageError) as caught:
        asked(archived, Question(), first)
    assert str(first) in str(caught.value)
    assert str(archived.log) in str(caught.value)
    assert "are in no file that was named" in str(caught.value)
    assert asked(archived, Question(), second)[-1] == archived.whole[-1].seq


def test_an_archive_that_is_named_twice_is_refused(archived: Archived, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copy(archived.files[1], copy)
    with pytest.raises(UsageError, match="the same events") as caught:
        asked(archived, Question(), archived.files[1], copy)
    assert str(copy) in str(caught.value)


def test_an_archive_of_another_course_of_the_same_root_is_refused(
    archived: Archived, tmp_path: Path
) -> None:
    with EventLog(archived.log, read_only=True) as log:
        root_id = log.root_id
    other, file = tmp_path / "byre.db", tmp_path / "other"
    with EventLog(other) as log:
        log.transact(
            lambda to: to.execute("UPDATE meta SET value = ? WHERE key = 'root_id'", (root_id,))
        )
    with EventLog(other) as log:
        log.append([declaration("sb-1")])
        log.checkpoint()
        retention.archive_before(log, log.now_ns(), file, by=BY)
    with pytest.raises(UsageError, match="not those that the log") as caught:
        asked(archived, Question(), file)
    assert str(file) in str(caught.value)
    assert str(archived.log) in str(caught.value)


def test_an_archive_of_another_root_is_refused(archived: Archived, tmp_path: Path) -> None:
    with EventLog(tmp_path / "byre.db") as log, pytest.raises(UsageError, match="of root"):
        Past(log, archived.files)


def test_a_damaged_block_is_told_and_nothing_of_it_is_given_out(
    archived: Archived, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copy(archived.files[0], copy)
    connection = sqlite3.connect(copy)
    connection.execute("UPDATE blocks SET last_hash = ? WHERE first_seq = 18", ("0" * 64,))
    connection.commit()
    connection.close()
    found = []
    with pytest.raises(LogDamaged) as caught, Archive(copy) as opened:
        found += [event.seq for event in opened.events()]
    assert caught.value.seq == 18


def test_what_is_in_an_archive_is_not_told_twice_while_it_is_being_deleted(
    archived: Archived, tmp_path: Path
) -> None:
    """An attempt that was interrupted leaves rows behind that the archive has already."""
    for name in ("byre.db", "head"):
        shutil.copy(archived.log.with_name(name), tmp_path / name)
    with EventLog(tmp_path / "byre.db", read_only=True) as log:
        begin = log.begins_after().seq
    left = [event for event in archived.whole if begin - 3 <= event.seq <= begin]
    connection = sqlite3.connect(tmp_path / "byre.db")
    guards = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type='trigger'"
    ).fetchall()
    for name, _ in guards:
        connection.execute(f"DROP TRIGGER {name}")
    marks = ", ".join("?" * 13)
    connection.executemany(
        f"INSERT INTO events VALUES ({marks})",  # noqa: S608 - a constant
        [event.columns() for event in left],
    )
    for _, statement in guards:
        connection.execute(statement)
    connection.commit()
    connection.close()
    moved = Archived(tmp_path / "byre.db", archived.files, archived.whole)
    for question in (Question(), Question(type="transition"), Question(since=1)):
        wanted = [event.seq for event in archived.whole if fits(question, event)]
        assert wanted == asked(moved, question, *archived.files)

"""The verifier that needs nothing of byre says of a log what byre says of it."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from statemachine import proof, retention
from statemachine.errors import LogDamaged
from statemachine.eventlog import EventLog
from statemachine.events import chain_hash
from statemachine.logreader import LogReader
from statemachine.payloads import Requester
from tests.examples.test_examples import EXAMPLES, WITH_A_LOG
from tests.style import shellpages
from tests.unit.events_made import declaration, host_event
from tests.unit.logforger import placed, rows_of, with_column, write_rows

LINES_MAX = 40
EVENTS = 6


@pytest.fixture
def log(folder: Path) -> Path:
    path = folder / "byre.db"
    with EventLog(path, boot_id="boot-1") as made:
        made.append([declaration("sb-1")])
        made.append([host_event(f'größe \\ "{number}"\n\x01') for number in range(EVENTS - 1)])
    return path


def ran(
    *arguments: str | Path, program: str | Path = WITH_A_LOG
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", program, *arguments],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_is_short_and_needs_nothing_but_the_standard_library() -> None:
    text = (EXAMPLES / WITH_A_LOG).read_text()
    module = ast.parse(text)
    code = [line for line in text.partition('"""\n\n')[2].splitlines() if line.strip()]
    imported = [node for node in ast.walk(module) if isinstance(node, ast.Import)]
    assert len(code) <= LINES_MAX
    assert {name.name for node in imported for name in node.names} == {
        "hashlib", "json", "sqlite3", "sys"
    }  # fmt: skip
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(module))


def test_a_whole_log_has_the_same_head_as_byre_says(log: Path) -> None:
    with EventLog(log, read_only=True) as opened:
        found = proof.verify(opened)
    done = ran(log)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{EVENTS} events are what was written; head {found.seq}:{found.hash}\n"


@pytest.mark.parametrize("seq", range(1, EVENTS + 1))
@pytest.mark.parametrize(
    ("column", "value"), [("actor", "nobody"), ("at", 7), ("data", b"{}"), ("reason", None)]
)
def test_an_edited_event_is_named_by_both(log: Path, seq: int, column: str, value: object) -> None:
    rows = rows_of(log)
    write_rows(log, [*rows[: seq - 1], with_column(rows[seq - 1], column, value), *rows[seq:]])
    done = ran(log)
    assert (done.returncode, done.stderr) == (1, f"event {seq} was edited\n")
    with LogReader(log, lenient=True) as opened, pytest.raises(LogDamaged) as seen:
        proof.verify(opened)
    assert seen.value.seq == seq


def test_missing_and_moved_events_are_named(log: Path) -> None:
    rows = rows_of(log)
    write_rows(log, [*rows[:2], *rows[3:]])
    assert "event 3 is missing" in ran(log).stderr
    write_rows(log, [*rows[:2], placed(rows[3], 3), placed(rows[2], 4), *rows[4:]])
    assert "event 3 was edited" in ran(log).stderr


def test_a_noted_head_must_be_there(log: Path) -> None:
    rows = rows_of(log)
    heads = [f"{row[0]}:{row[-1]}" for row in rows]
    assert ran(log, heads[2]).returncode == 0
    write_rows(log, rows[:-1])
    assert ran(log, heads[2]).returncode == 0
    done = ran(log, heads[-1])
    assert (done.returncode, "it was cut off" in done.stderr) == (1, True)


@pytest.fixture
def archived(folder: Path) -> Path:
    """A log whose oldest events are in an archive, but for two that are still to be deleted."""
    path = folder / "byre.db"
    with EventLog(path, boot_id="boot-1") as made:
        made.append([declaration("sb-1")])
        made.append([host_event(str(number)) for number in range(EVENTS - 1)])
        kept = made.select("WHERE seq > ? ORDER BY seq", EVENTS - 2)
        made.checkpoint()
        by = Requester(uid=0, user="root", pid=1, command="test")
        retention.archive_before(made, made.now_ns(), folder / "old", by=by)
        made.append([host_event("later")])
    write_rows(path, [*(each.columns() for each in kept), *rows_of(path)])
    return path


def programs(folder: Path) -> list[Path]:
    [program] = shellpages.blocks("docs/reference/log-format.md", "python")
    page = folder / "page.py"
    page.write_text(program)
    return [EXAMPLES / WITH_A_LOG, page]


def test_a_log_that_begins_after_an_archive_is_checked_from_there(archived: Path) -> None:
    with EventLog(archived, read_only=True) as opened:
        found, begin = proof.verify(opened), opened.begins_after()
    assert begin.seq == EVENTS
    for program in programs(archived.parent):
        done = ran(archived, program=program)
        assert (done.returncode, done.stderr) == (0, "")
        assert found.hash in done.stdout
        assert "archive" in done.stdout
    assert ran(archived, f"{begin.seq}:{begin.hash}").returncode == 0, "the archive's own head"
    assert ran(archived, f"{begin.seq}:{'0' * 64}").returncode == 1


def test_what_was_cut_off_behind_an_archive_is_missed(archived: Path) -> None:
    rows = rows_of(archived)
    first = next(place for place, row in enumerate(rows) if row[0] == EVENTS + 1)
    for left in (rows[first + 1 :], [with_column(rows[first], "actor", "x"), *rows[first + 1 :]]):
        write_rows(archived, left)
        for program in programs(archived.parent):
            done = ran(archived, program=program)
            assert (done.returncode, f"event {EVENTS + 1}" in done.stderr) == (1, True)


def test_the_worked_example_of_the_format_is_right() -> None:
    [text] = [
        each.rstrip("\n") for each in shellpages.blocks("docs/reference/log-format.md", "json")
    ]
    hashes = shellpages.blocks("docs/reference/log-format.md", "text")
    columns = tuple(json.loads(text))
    assert hashlib.sha256(text.encode()).hexdigest() == hashes[0].strip()
    assert chain_hash(columns) == hashes[0].strip()
    page = Path(EXAMPLES.parent / "docs/reference/log-format.md").read_text()
    assert f"an event, {len(text.encode())} of them" in page

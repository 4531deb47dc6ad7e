"""Every command of the pages on finding out what happened works, and says something."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.style import shellpages

pytestmark = pytest.mark.slow

PAGES = ("docs/how-to/find-out-what-happened.md", "docs/how-to/use-the-log-elsewhere.md")
LIFE = """
truncate -s 1M base.img
byre create sb-1 --base base.img --link vm/link --wait
rm vm/link
byre run --once
byre pause sb-1 --wait
byre create sb-2 --base base.img --wait
byre remove sb-2 --wait --reason 'not needed'
byre restore sb-1 --wait
cow=$(echo state/cow/*)
mv "$cow" aside
byre run --once || echo faulted
mv aside "$cow"
byre retry sb-1 --wait

"""
"""A life with a drift, a fault and a removal in it."""
NOTHING_FAILED = "outcome <> 'completed'"
"""The one question that a healthy life answers with nothing."""


def lines() -> list[str]:
    """Return the commands of the pages, one a line."""
    return [
        line
        for page in PAGES
        for step in shellpages.steps(page)
        for line in step.commands.splitlines()
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state root of two disks that have lived; what is left of them goes with the tests."""
    folder = tmp_path_factory.mktemp("life")
    state = folder / "state"
    life = shellpages.run(LIFE, folder, BYRE_ROOT=str(state))
    yield state
    ended = shellpages.run("byre remove sb-1 --wait", folder, BYRE_ROOT=str(state))
    assert life.returncode == 0, life.stdout
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("line", lines())
def test_a_command_of_the_page_works_and_says_something(line: str, root: Path) -> None:
    words = shlex.split(line)
    if words[0] == "sqlite3":  # the program need not be installed; the question must be right
        printed = "\n".join(map(str, ask(root, words[-1])))
    else:
        ended = shellpages.run(line, root, BYRE_ROOT=str(root))
        assert ended.returncode == 0, ended.stdout
        printed = ended.stdout
    assert printed.strip() or NOTHING_FAILED in line


def ask(root: Path, question: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(f"file:{root}/byre.db?mode=ro", uri=True)
    try:
        return connection.execute(question).fetchall()
    finally:
        connection.close()


def test_the_program_of_the_format_page_verifies_a_log(root: Path) -> None:
    ended = shellpages.run(verifier(f"{root}/byre.db"), root)
    assert ended.returncode == 0, ended.stdout
    said = shellpages.run("byre log verify", root, BYRE_ROOT=str(root)).stdout
    assert ended.stdout.split()[-1] == said.split()[-1].rpartition(":")[2]


def test_the_program_of_the_format_page_finds_an_edited_event(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with sqlite3.connect(copy) as connection, sqlite3.connect(root / "byre.db") as original:
        original.backup(connection)
        connection.execute("DROP TRIGGER events_no_update")
        connection.execute("UPDATE events SET reason = 'nothing to see' WHERE seq = 3")
    connection.close()
    original.close()
    ended = shellpages.run(verifier(str(copy)), tmp_path)
    assert (ended.returncode, ended.stdout.strip()) == (1, "event 3 was edited")


def verifier(database: str) -> str:
    """Return the shell command that runs the program of the page on the log's format."""
    [program] = shellpages.blocks("docs/reference/log-format.md", "python")
    return f"python - {shlex.quote(database)} <<'END'\n{program}END"

"""Every command of the auditor's page works, in its order, and prints what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from statemachine.errors import Damage
from tests.style import REPOSITORY, shellpages

pytestmark = pytest.mark.slow

PAGE = "docs/how-to/audit-the-log.md"
MARK = "--- next block ---"
LIFE = """
ln -s "$REPOSITORY/examples" examples
truncate -s 1M base.img
byre create sb-1 --base base.img --wait
byre pause sb-1 --wait
"""
OLD = "--before 90d"
END = """
byre remove sb-1 --wait
byre log verify
"""


def test_the_commands_of_the_page_work(tmp_path: Path) -> None:
    steps = shellpages.steps(PAGE)
    body = "\n".join(f"echo '{MARK}'\n{step.commands}" for step in steps)
    assert OLD in body
    # Nothing in a test is as old as on the page.
    script = "\n".join([LIFE, body.replace(OLD, "--before 0s"), END])
    state = str(tmp_path / "state")
    ended = shellpages.run(script, tmp_path, BYRE_ROOT=state, REPOSITORY=str(REPOSITORY))
    assert ended.returncode == 0, ended.stdout
    printed = ended.stdout.split(MARK)[1:]
    assert len(printed) == len(steps) >= 8
    for step, output in zip(steps, printed, strict=True):
        assert shellpages.missing_lines(step.expected, output) == [], output
    assert "log.restored" in printed[-1]


def test_each_word_of_damage_is_on_the_page() -> None:
    page = (REPOSITORY / PAGE).read_text(encoding="utf-8")
    assert [each for each in Damage if f"`{each}`" not in page] == []

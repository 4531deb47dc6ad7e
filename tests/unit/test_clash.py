"""Where another package has the name of ours, the command says so instead of failing somehow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.clash import whose_statemachine


def test_our_own_package_is_known() -> None:
    assert whose_statemachine() == ""


@pytest.mark.parametrize("body", ["class StateMachine: ...\n", ""])
def test_the_command_says_clearly_that_another_package_has_our_name(
    tmp_path: Path, body: str
) -> None:
    (tmp_path / "statemachine").mkdir()
    (tmp_path / "statemachine/__init__.py").write_text(body)
    program = "import sys; sys.argv = ['byre', 'get']; from reconciler.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "is not byre's" in done.stderr
    assert "hint: take it out" in done.stderr
    assert "Traceback" not in done.stderr

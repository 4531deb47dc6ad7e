"""`history --follow` and `get --watch`: a second process sees what happens as it happens."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BYRE = (sys.executable, "-c", "from reconciler.cli import main; main()")
LINE_S = 20.0


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.img"
    path.write_bytes(bytes(4096))
    return path


def byre(root: Path, *arguments: str) -> None:
    subprocess.run([*BYRE, "--root", str(root), *arguments], check=True, timeout=60)


@contextlib.contextmanager
def following(root: Path, *arguments: str) -> Iterator[Iterator[Any]]:
    """Yield the JSON lines of a command that runs for ever."""
    command = [*BYRE, "--root", str(root), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield map(json.loads, process.stdout)
        finally:
            process.terminate()


@pytest.mark.timeout(LINE_S * 3)
def test_history_goes_on_with_what_another_process_appends(tmp_path: Path, base: Path) -> None:
    root = tmp_path / "root"
    byre(root, "create", "sb-1", "--base", str(base))
    with following(root, "history", "--follow", "-o", "jsonl") as events:
        assert _of(next(events)) == ("sb-1", "disk.declared")
        byre(root, "create", "sb-2", "--base", str(base))
        assert _of(next(events)) == ("sb-2", "disk.declared")


@pytest.mark.timeout(LINE_S * 3)
def test_get_shows_again_whenever_something_changes(tmp_path: Path, base: Path) -> None:
    root = tmp_path / "root"
    byre(root, "create", "sb-1", "--base", str(base))
    with following(root, "get", "--watch", "-o", "json") as pictures:
        assert [(d["name"], d["desired"]) for d in next(pictures)] == [("sb-1", "live")]
        byre(root, "remove", "sb-1")
        assert [(d["name"], d["desired"]) for d in next(pictures)] == [("sb-1", "removed")]


def _of(event: dict[str, Any]) -> tuple[str, str]:
    return event["disk"], event["type"]

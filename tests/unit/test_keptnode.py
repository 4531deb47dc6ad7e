"""A node that is opened once: by whom, when not, and until when."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.kernel.keptnode import KeptNode


def test_it_is_opened_by_the_first_question_and_never_again(tmp_path: Path) -> None:
    path = tmp_path / "control"
    path.touch()
    node = KeptNode(path)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: node.fileno(), range(64)))
    assert len(found) == 1
    assert os.fstat(node.fileno()).st_ino == path.stat().st_ino
    assert os.get_inheritable(node.fileno()) is False


def test_one_that_is_missing_is_asked_for_anew(tmp_path: Path) -> None:
    node = KeptNode(tmp_path / "control")
    with pytest.raises(FileNotFoundError):
        node.fileno()
    (tmp_path / "control").touch()
    assert node.fileno() >= 0


def test_it_is_closed_with_its_last_user(tmp_path: Path) -> None:
    (tmp_path / "control").touch()
    node = KeptNode(tmp_path / "control")
    descriptor = node.fileno()
    del node
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)

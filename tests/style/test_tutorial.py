"""The tutorial works as it is written: its commands are run, and print what it says."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.style import shellpages

pytestmark = pytest.mark.slow

TUTORIAL = "docs/tutorial/first-disk.md"
_MARK = "::block "
GUEST_TIMEOUT_S = 600


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose disks are removed, and whose mounts are undone, however the test ended."""
    yield tmp_path
    for mount in tmp_path.rglob("mnt"):
        with contextlib.suppress(OSError):
            if mount.is_mount():
                shellpages.run(f"umount '{mount}'", tmp_path)
    for log in tmp_path.rglob("byre.db"):
        shellpages.run("byre remove sb-1 --wait", tmp_path, BYRE_ROOT=str(log.parent))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="the tutorial mounts a disk, which takes root")
def test_the_tutorial_works_as_written(folder: Path) -> None:
    check_tutorial(folder)


@pytest.mark.kernel
@pytest.mark.timeout(GUEST_TIMEOUT_S + 60)  # each command takes seconds to start in the guest
def test_the_tutorial_works_as_written_on_device_mapper(folder: Path) -> None:
    check_tutorial(folder, timeout_s=GUEST_TIMEOUT_S)


def test_a_page_that_says_what_is_not_printed_is_found_out() -> None:
    printed = "NAME   STATE\n ─────\n sb-1   live  at /dev/loop0\n"
    assert shellpages.missing_lines("sb-1 live at /dev/…\n", printed) == []
    assert shellpages.missing_lines("sb-1 paused at /dev/…\n", printed) == ["sb-1 paused at /dev/…"]
    assert shellpages.missing_lines("sb-1 live\n", printed) == ["sb-1 live"]
    assert shellpages.missing_lines("sb-1 …\nNAME STATE\n", printed) == ["NAME STATE"]


def check_tutorial(folder: Path, *, timeout_s: float = shellpages.TIMEOUT_S) -> None:
    steps = shellpages.steps(TUTORIAL)
    script = "\n".join(f"echo '{_MARK}'\n{step.commands}" for step in steps)
    ended = shellpages.run(script, folder, timeout_s=timeout_s)
    assert ended.returncode == 0, ended.stdout
    printed = ended.stdout.split(_MARK)[1:]
    assert len(printed) == len(steps)
    for step, output in zip(steps, printed, strict=True):
        assert shellpages.missing_lines(step.expected, output) == [], output
    assert list(folder.iterdir()) == []

"""The demonstration on this host, as the command: every check holds, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reconciler.cli.app import run
from reconciler.demo import Options, Teller, demonstrate
from reconciler.demotools import DemoFailed, leftovers, make_base
from reconciler.kernel.linux import LinuxKernel
from reconciler.kernel.port import Capabilities
from tests import uncovered

pytestmark = pytest.mark.slow

TIMEOUT_S = 60
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="loops and mounts need root")


def demo(temporary: Path, *words: str, expect: int = 0) -> str:
    """Run the command with its temporary folder in a place of ours; returns what it told."""
    done = subprocess.run(
        [sys.executable, "-c", "from reconciler.cli import main; main()", "demo", *words],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert expect == done.returncode, done.stderr
    assert done.stdout == ""
    return done.stderr


def loops_below(folder: Path) -> list[str]:
    prefix = f"{folder.resolve()}/"
    return [loop.path for loop in LinuxKernel().loops() if loop.backing_path.startswith(prefix)]


@pytest.mark.root
@needs_root
def test_it_shows_a_whole_life_and_leaves_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    told = demo(tmp_path)
    assert "Every check held" in told
    assert "took loop device" in told or "took dm device" in told
    assert "by a mount" in told
    assert "drift.detected" in told
    assert time.monotonic() - began < TIMEOUT_S
    assert (list(tmp_path.iterdir()), loops_below(tmp_path)) == ([], [])


def test_it_works_with_plain_files_where_nothing_else_is_permitted(tmp_path: Path) -> None:
    told = demo(tmp_path, "--without-loops")
    assert "Every check held" in told
    assert "by debugfs" in told
    assert "took link" in told
    assert list(tmp_path.iterdir()) == []


def test_the_log_is_kept_when_asked_for(tmp_path: Path) -> None:
    told = demo(tmp_path, "--without-loops", "--keep")
    [folder] = tmp_path.iterdir()
    assert f"byre --root {folder}/root history" in told
    with pytest.raises(SystemExit) as ended:
        run(["--root", str(folder / "root"), "replay"])
    assert ended.value.code == 0
    assert list((folder / "root" / "cow").iterdir()) == []


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "from reconciler.cli import main; main()", "demo"],
        env=uncovered.environment(TMPDIR=str(tmp_path)),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "all live" not in (line := process.stderr.readline()):
            assert line, "it ended before"
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(TIMEOUT_S) == 128 + number, rest
    assert "cleaning up" in rest
    assert (list(tmp_path.iterdir()), loops_below(tmp_path)) == ([], [])


def test_a_check_that_does_not_hold_ends_it_and_everything_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()

    class Forgetful(Teller):
        def step(self, text: str) -> None:
            if text.startswith("paused"):
                for copy in (folder / "root" / "cow").iterdir():
                    copy.write_bytes(bytes(copy.stat().st_size))

    with pytest.raises(DemoFailed):
        demonstrate(folder, Forgetful(), Options(without_loops=True))
    assert not folder.exists()


def test_a_missing_program_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.demotools._PATH", str(tmp_path))
    with pytest.raises(DemoFailed, match="mke2fs is missing") as caught:
        make_base(tmp_path / "base")
    assert "e2fsprogs" in caught.value.hint


def test_leftovers_are_seen(tmp_path: Path) -> None:
    class NoDevices(LinuxKernel):
        def capabilities(self) -> Capabilities:
            return Capabilities(dm="none", loop="none")

    (tmp_path / "root/cow").mkdir(parents=True)
    (tmp_path / "root/cow/file").touch()
    assert leftovers(NoDevices(), tmp_path, "byre-demo-x-") == [f"{tmp_path}/root/cow/file"]

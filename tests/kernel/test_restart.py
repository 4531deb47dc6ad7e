"""Adopt, never sweep: a reconciler that comes and goes leaves live, mounted disks as they are."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.cli import until
from tests.kernel.host import Host

pytestmark = pytest.mark.kernel

NAMES = ("sb-1", "sb-2")
WRITER = """\
n=0
while [ ! -e "$1/stop" ]; do
    n=$((n + 1)); echo $n >"$1/count" && sync -d "$1/count" || exit 1
done"""


@contextmanager
def written_to(at: Path) -> Iterator[None]:
    """Write to a mounted disk all the while, each write through to the device."""
    writer = subprocess.Popen(["sh", "-c", WRITER, "writer", at])
    try:
        until((at / "count").exists, "the writer writes")
        yield
        before = count(at)
        until(lambda: count(at) > before, "the writer still writes")
    finally:
        (at / "stop").touch()
        assert writer.wait(60) == 0
        (at / "stop").unlink()


def count(at: Path) -> int:
    return int((at / "count").read_text() or 0)


def test_a_restart_of_the_reconciler_changes_nothing_under_disks_in_use(host: Host) -> None:
    base = host.make_ext4()
    first = host.cli.daemon()
    devices = [host.live(name, base) for name in NAMES]
    with host.mounted(devices[0]) as at, host.mounted(devices[1]) as other:
        (other / "note").write_text("kept")
        with written_to(at):
            seq, there = host.last_seq(), host.kernel_side()
            assert first.terminate() == 0
            assert host.types_after(seq) == ["reconciler.stopped"]

            second = host.cli.daemon()
            second.signal(signal.SIGHUP)
            until(lambda: "reloading" in second.output, "it looks at everything once more")
            assert second.kill() == -signal.SIGKILL

            third = host.cli.daemon()
            assert third.terminate() == 0
            host.cli("run", "--once", expect=0)
            events = ["stopped", "started", "started", "stopped"]
            assert [f"reconciler.{word}" for word in events] == host.types_after(seq)
            assert there == host.kernel_side()
        assert (other / "note").read_text() == "kept"
    assert [line for line in third.output.splitlines() if "error" in line.lower()] == []
    host.cli("remove", *NAMES, "--wait")
    host.assert_nothing_left()


def test_a_second_pass_over_a_converged_host_does_nothing_and_writes_nothing(host: Host) -> None:
    base, link = host.make_ext4(), host.folder / "links" / "sb-1"
    host.live("sb-1", base, "--link", link)
    host.cli("create", "sb-2", "--base", base, "--desired", "attached", "--wait")
    host.cli("create", "sb-3", "--base", base, "--wait")
    host.cli("pause", "sb-3", "--wait")
    host.cli("run", "--once")
    seq, there, inode = host.last_seq(), host.kernel_side(), link.lstat().st_ino
    log = (host.root / "byre.db").read_bytes()
    host.cli("run", "--once")
    assert (seq, there, inode) == (host.last_seq(), host.kernel_side(), link.lstat().st_ino)
    assert log == (host.root / "byre.db").read_bytes()


def test_what_was_done_while_no_reconciler_ran_is_found_by_the_next(host: Host) -> None:
    device = host.live("sb-1", host.make_ext4())
    host.cli.daemon().kill()
    subprocess.run(["dmsetup", "remove", "--retry", device.name], check=True, timeout=60)
    seq = host.last_seq()
    host.cli("run", "--once")
    assert host.story("sb-1", seq) == ["detected lose", "started restore", "completed restore"]


def test_a_second_reconciler_on_one_root_is_refused_and_told_whose_it_is(host: Host) -> None:
    first = host.cli.daemon()
    for words in (("run",), ("run", "--once")):
        answer = host.cli(*words, expect=1)
        assert f"pid {first.pid}" in answer.err
    assert first.is_alive
    assert os.getpid() != first.pid

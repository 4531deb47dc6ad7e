"""An upgrade of byre is nothing that a disk in use could notice: no error, no pause, no new life.

The writers write all the time, each write through to the device. What the kernel tells of the
devices meanwhile is listened to: a suspended and resumed device would send a uevent.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pyudev

import reconciler
from tests.kernel.cli import END_S, until
from tests.kernel.host import MIB, Host, tool
from tests.torture.contents import BLOCK, pattern
from tests.torture.direct import read_all
from tests.torture.writer import Writer

pytestmark = pytest.mark.kernel

REPOSITORY = Path(reconciler.__file__).parents[1]
BARE, MOUNTED, PAUSED = "sb-bare", "sb-mounted", "sb-paused"
READY = "reconciler started"
ELSEWHERE = """\
import sys
import reconciler, statemachine
print(reconciler.__file__, statemachine.__file__, flush=True)
from reconciler.cli import main
main()
"""
"""The program `byre` of whichever checkout comes first; says which one that is."""


@contextmanager
def checkout(host: Host) -> Iterator[Path]:
    """Another copy of byre, as an upgrade leaves one, in a folder of its own."""
    copy = host.folder / "upgraded"
    for package in ("reconciler", "statemachine"):
        shutil.copytree(REPOSITORY / package, copy / package)
    yield copy
    shutil.rmtree(copy)


@contextmanager
def running(host: Host, copy: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`byre run` of a checkout, as a program; ready when it is given."""
    output = host.folder / "upgraded.txt"
    words = host.cli.words("run", "--resync", "600")
    with output.open("wb") as file:
        program = subprocess.Popen(
            [sys.executable, "-c", ELSEWHERE, *words],
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONSAFEPATH": "1"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            until(
                lambda: READY in output.read_text() or program.poll() is not None,
                "the other checkout is ready",
                timeout_s=2 * END_S,
            )
            said = output.read_text()
            assert f"{copy}/reconciler/" in said, said
            assert f"{copy}/statemachine/" in said, said
            assert READY in said, said
            yield program
        finally:
            program.kill()
            program.wait()


@contextmanager
def written_to(host: Host, bare: Path, mounted: Path, base: Path) -> Iterator[tuple[Writer, ...]]:
    """Both disks written to all the while; at the end every byte is what was written."""
    with host.mounted(mounted) as at:
        file, before = at / "data", pattern("file", MIB // 4 // BLOCK)
        file.write_bytes(before)
        tool("sync", "-f", at)
        writers = (Writer(bare, BARE, base.read_bytes()), Writer(file, MOUNTED, before))
        try:
            yield writers
            for writer, path in zip(writers, (bare, file), strict=True):
                writer.stop().check(read_all(path))
        finally:
            for writer in writers:
                writer.kill()


def uevents() -> pyudev.Monitor:
    """Listen to what the kernel says of block devices from now on."""
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
    monitor.filter_by("block")
    monitor.start()
    return monitor


def heard(monitor: pyudev.Monitor, names: set[str]) -> list[str]:
    """Return what was said of some devices since."""
    said = iter(lambda: monitor.poll(timeout=0), None)
    return [f"{each.action} {each.sys_name}" for each in said if each.sys_name in names]


@pytest.mark.timeout(600)
def test_an_upgrade_is_not_noticed_by_disks_that_are_written_to(host: Host) -> None:
    base, ground = host.make_ext4(size=MIB), host.make_file("pattern.img", MIB)
    ground.write_bytes(pattern("ground", MIB // BLOCK))
    old = host.cli.daemon()
    bare, mounted = host.live(BARE, ground), host.live(MOUNTED, base)
    host.live(PAUSED, ground)
    host.cli("pause", PAUSED, "--wait")
    with checkout(host) as copy, written_to(host, bare, mounted, ground) as writers:
        tool("udevadm", "settle")
        there, seq = host.kernel_side(), host.last_seq()
        monitor = uevents()

        def assert_unnoticed() -> None:
            for writer in writers:
                writer.until_it_writes_on()
            assert there == host.kernel_side()

        assert old.terminate() == 0
        assert_unnoticed()
        with running(host, copy) as new:
            assert_unnoticed()
            new.kill()
            new.wait()
            assert_unnoticed()
        last = host.cli.daemon()  # the first checkout again, after a crash of the other
        host.cli("restore", PAUSED, "--wait")
        host.cli("pause", PAUSED, "--wait")
        for writer in writers:
            writer.until_it_writes_on()
        assert last.kill() == -signal.SIGKILL
        host.cli("run", "--once")
        assert_unnoticed()
        names = {bare.resolve().name, mounted.resolve().name}
        assert heard(monitor, names) == []
    starts = ["stopped", "started", "started"]
    words = [each for each in host.types_after(seq) if each.startswith("reconciler.")]
    assert [f"reconciler.{word}" for word in starts] == words
    # That a CoW file fills is told; that is what the writers do.
    told = {*host.story(BARE, seq), *host.story(MOUNTED, seq)}
    assert told <= {"threshold_crossed"}
    host.assert_proved()
    host.cli("remove", BARE, MOUNTED, PAUSED, "--wait")
    host.assert_nothing_left()

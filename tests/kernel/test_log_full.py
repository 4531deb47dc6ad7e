"""The log on a real file system that is full or fails, and a damaged log under live disks.

No acknowledged event is lost, the chain is never torn, and a running reconciler goes on by itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from statemachine import history
from statemachine.errors import LogUnavailable
from statemachine.eventlog import EventLog
from statemachine.reserve import RESERVE_BYTES
from tests.kernel.cli import END_S, Cli, until
from tests.kernel.host import MIB, Host, tool
from tests.kernel.test_restart import written_to
from tests.unit.events_made import host_event

pytestmark = pytest.mark.kernel

DISK = 160 * MIB
ROUNDS = 3
MORE = 15


class LogDisk:
    """An ext4 of the test's own on a dm device, whose table can be swapped for one of errors."""

    def __init__(self, host: Host, *features: str) -> None:
        image = host.make_file("log.img", DISK)
        loop = tool("losetup", "--find", "--show", image)
        self.device = Path("/dev/mapper") / f"{host.prefix}log"
        self._name = self.device.name
        self._good = f"0 {DISK // 512} linear {loop} 0"
        tool("dmsetup", "create", self._name, "--table", self._good)
        tool("udevadm", "settle")
        tool("mke2fs", "-q", "-t", "ext4", "-m", "0", *features, self.device)

    def fail(self) -> None:
        """Answer every read and write with EIO from now on."""
        self._swap(f"0 {DISK // 512} error")

    def heal(self) -> None:
        """Answer as before."""
        self._swap(self._good)

    def _swap(self, table: str) -> None:
        # --noflush: what is dirty now meets the new table.
        tool("dmsetup", "suspend", "--noflush", "--nolockfs", self._name)
        tool("dmsetup", "load", self._name, "--table", table)
        tool("dmsetup", "resume", self._name)


@contextmanager
def root_on(host: Host, disk: LogDisk) -> Iterator[Path]:
    """Have the host's root on a file system of its own for a while."""
    with host.mounted(disk.device) as at:
        at.chmod(0o700)
        host.root = at
        host.cli = Cli(at, host.prefix)
        try:
            yield at
        finally:
            host.cli.end_children()


def take_all_room(at: Path) -> None:
    free = os.statvfs(at)
    with (at / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - 64 * 1024)
    with contextlib.suppress(OSError), (at / "rest").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)


def make_room(at: Path) -> None:
    for name in ("filler", "rest"):
        (at / name).unlink()


def append_until_refused(log: EventLog, size: int) -> None:
    for _ in range(1000):
        log.append([host_event("x" * size)])


# --- no room --------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_a_log_without_room_uses_its_reserve_then_refuses_then_goes_on(host: Host) -> None:
    with root_on(host, LogDisk(host)) as at:
        daemon = host.cli.daemon()
        host.live("sb-1", host.make_ext4())
        reserve = host.root / "reserve"
        assert reserve.stat().st_blocks * 512 >= RESERVE_BYTES
        take_all_room(at)
        host.cli("create", "sb-2", "--base", host.make_ext4("other.ext4"), "--desired", "paused")
        with EventLog(host.root / "byre.db", reserve_bytes=RESERVE_BYTES) as log:
            for size in (200_000, 4_000, 1):  # in the end there is no room for the smallest one
                with pytest.raises(LogUnavailable):
                    append_until_refused(log, size)
            acknowledged = log.last_seq()
            assert not reserve.exists()
        refused = host.cli("pause", "sb-1", expect=1)
        assert "full" in refused.err
        assert daemon.is_alive
        make_room(at)
        host.cli("pause", "sb-1", "--wait")
        host.cli("restore", "sb-1", "--wait")
        assert reserve.exists()
        assert daemon.is_alive
        with EventLog(host.root / "byre.db", read_only=True) as log:
            history.prove(log)
            assert log.last_seq() > acknowledged
        host.cli("remove", "sb-1", "--wait")
        assert daemon.terminate() == 0
        assert host.dm_names() == [f"{host.prefix}log"]


# --- a disk that fails ----------------------------------------------------------------------------


class Appender:
    """A process that appends for ever and notes outside what was acknowledged and refused."""

    def __init__(self, log: Path, notes: Path) -> None:
        self._notes = notes
        notes.touch()
        sys.stdout.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: no thread is running here
            self._pid = os.fork()
        if self._pid == 0:
            try:
                _append_for_ever(log, notes)
            finally:
                os._exit(1)

    @property
    def acknowledged(self) -> dict[int, str]:
        lines = self._notes.read_text().splitlines()
        pairs = [line.split() for line in lines if not line.startswith("refused")]
        return {int(seq): found for seq, found in pairs}

    @property
    def refusals(self) -> int:
        return self._notes.read_text().count("refused")

    def until_more(self) -> None:
        before = len(self.acknowledged)
        until(lambda: len(self.acknowledged) >= before + MORE, "more events", timeout_s=END_S)

    def until_refused(self) -> None:
        before = self.refusals
        until(lambda: self.refusals >= before + 2, "it is refused", timeout_s=END_S)

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _append_for_ever(log: Path, notes: Path) -> None:
    descriptor = os.open(notes, os.O_WRONLY | os.O_APPEND)
    with EventLog(log) as opened:
        while True:
            try:
                [event] = opened.append([host_event("y" * 3000)])
                line = f"{event.seq} {event.hash}\n"
            except LogUnavailable:
                line = "refused\n"
                time.sleep(0.05)
            os.write(descriptor, line.encode())


def check_all_there(log: Path, acknowledged: dict[int, str]) -> None:
    with EventLog(log) as opened:
        history.prove(opened)
        there = {event.seq: event.hash for event in opened.events()}
    lost = {seq for seq, found in acknowledged.items() if there.get(seq) != found}
    assert lost == set()


@pytest.mark.timeout(300)
def test_a_disk_that_fails_for_a_while_loses_no_acknowledged_event(host: Host) -> None:
    # Without a journal ext4 goes on after an error, and so must the log.
    disk = LogDisk(host, "-O", "^has_journal")
    notes = host.folder / "notes"
    with host.mounted(disk.device) as at:
        appender = Appender(at / "root" / "byre.db", notes)
        for _ in range(ROUNDS):
            appender.until_more()
            disk.fail()
            appender.until_refused()
            disk.heal()
            appender.until_more()
        appender.kill()
    with host.mounted(disk.device) as at:  # only what is really on the disk
        check_all_there(at / "root" / "byre.db", appender.acknowledged)
    assert len(appender.acknowledged) >= 2 * ROUNDS * MORE


def test_a_file_system_that_became_read_only_is_unavailable_and_whole_after_a_remount(
    host: Host,
) -> None:
    disk = LogDisk(host)
    notes = host.folder / "notes"
    with host.mounted(disk.device) as at:
        appender = Appender(at / "root" / "byre.db", notes)
        appender.until_more()
        # What ext4 does by itself when its journal cannot be written (ext4(5), "abort").
        tool("mount", "-o", "remount,abort", at)
        appender.until_refused()
        appender.kill()
    tool("e2fsck", "-p", "-f", disk.device, code=1)
    with host.mounted(disk.device) as at:
        check_all_there(at / "root" / "byre.db", appender.acknowledged)


# --- a log that is damaged ------------------------------------------------------------------------


def test_a_log_that_becomes_damaged_leaves_live_disks_as_they_are(host: Host) -> None:
    daemon = host.cli.daemon()
    device = host.live("sb-1", host.make_ext4())
    path = host.root / "byre.db"
    with host.mounted(device) as at, written_to(at):
        there = host.kernel_side()
        with contextlib.closing(sqlite3.connect(path)) as raw, raw:
            raw.execute("DROP TRIGGER events_no_update")
            raw.execute("UPDATE events SET actor = 'x' WHERE seq = (SELECT max(seq) FROM events)")
        device_link = device.readlink()
        device.unlink()  # something to repair, so that it looks
        assert daemon.wait() == 6
        assert daemon.output.count("error:") == 1
        device.symlink_to(device_link)
        for words in (("run",), ("run", "--once"), ("remove", "sb-1")):
            answer = host.cli(*words, expect=6)
            assert "hash does not fit" in answer.err
        assert there == host.kernel_side()
        host.cli("log", "salvage", host.folder / "new" / "byre.db")
        for name in ("byre.db", "head"):
            (host.folder / "new" / name).replace(host.root / name)
        for beside in host.root.glob("byre.db-*"):
            beside.unlink()
        host.cli("run", "--once")
        assert there == host.kernel_side()
    host.assert_proved()
    host.cli("remove", "sb-1", "--wait")
    host.assert_nothing_left()

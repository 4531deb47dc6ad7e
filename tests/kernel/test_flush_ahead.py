"""A disk that is waited for is written out meanwhile, so that its user's last close is short."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.cli import until
from tests.kernel.host import MIB, Host, digest, tool

pytestmark = pytest.mark.kernel

WRITTEN = 24 * MIB
_PERIODIC = Path("/proc/sys/vm/dirty_writeback_centisecs")


@pytest.fixture(autouse=True)
def _no_periodic_writeback() -> Iterator[None]:
    """Have the kernel write nothing out by itself, or it could be what is seen."""
    before = _PERIODIC.read_text()
    _PERIODIC.write_text("0")
    yield
    _PERIODIC.write_text(before)


def written_bytes(device: Path) -> int:
    """Return what has reached a device below the page cache; Documentation/block/stat.rst."""
    return int(Path("/sys/block", device.resolve().name, "stat").read_text().split()[6]) * 512


def pids_in_use(host: Host) -> set[int | None]:
    """Return who has the disk open, byre too."""
    device = host.kernel.dm(host.device("sb-1").name)
    assert device is not None
    return {holder.pid for holder in host.kernel.holders(device.device)}


def dirtied(host: Host, *words: object) -> tuple[Path, int]:
    """Give a live disk that was written to and not closed: its device and the descriptor."""
    device = host.live("sb-1", host.make_file("base", 32 * MIB), *words)
    descriptor = os.open(device, os.O_RDWR)
    for offset in range(0, WRITTEN, MIB):
        os.pwrite(descriptor, os.urandom(MIB), offset)
    assert written_bytes(device) < WRITTEN // 2
    return device, descriptor


def test_a_disk_that_shall_be_paused_is_written_out_while_it_is_in_use(host: Host) -> None:
    device, descriptor = dirtied(host)
    try:
        answer = host.cli("pause", "sb-1", "--wait", "--timeout", "1", expect=5)
        assert f"pid {os.getpid()}" in answer.err
        until(lambda: written_bytes(device) >= WRITTEN, "it is all written", timeout_s=60)
        whole = digest(device)
    finally:
        os.close(descriptor)
    host.cli("pause", "sb-1", "--wait")
    host.assert_nothing_in_kernel()
    tool("udevadm", "settle")
    host.cli("restore", "sb-1", "--wait")
    tool("udevadm", "settle")
    assert whole == digest(device)


def test_a_running_reconciler_writes_it_out_and_lets_go_by_itself(host: Host) -> None:
    daemon = host.cli.daemon()  # first: it is forked, and would have our descriptor as well
    device, descriptor = dirtied(host)
    try:
        host.cli("pause", "sb-1")
        until(lambda: written_bytes(device) >= WRITTEN, "it is all written", timeout_s=60)
        until(lambda: pids_in_use(host) == {os.getpid()}, "byre let go of it", timeout_s=60)
        [failed] = [each for each in host.history("sb-1") if each.type == "transition.failed"]
        assert [f"(pid {os.getpid()})" in each for each in failed.data["holders"]] == [True]
    finally:
        os.close(descriptor)
    host.until_settled("sb-1", "paused", timeout_s=60)
    daemon.terminate()
    host.assert_nothing_in_kernel()


def test_what_shall_be_removed_is_not_written_out_first(host: Host) -> None:
    device, descriptor = dirtied(host)
    try:
        before = written_bytes(device)
        host.cli("remove", "sb-1", "--wait", "--timeout", "1", expect=5)
        assert written_bytes(device) == before
    finally:
        os.close(descriptor)
    host.cli("remove", "sb-1", "--wait")
    host.assert_nothing_left()

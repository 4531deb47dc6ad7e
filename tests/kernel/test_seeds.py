"""Guarantees of the seeds that no other test shows; docs/explanation/seeds.md has them all."""

from __future__ import annotations

import subprocess

import pytest

from tests.kernel.cli import until
from tests.kernel.host import Host, digest, tool

pytestmark = pytest.mark.kernel


def test_wrenn_a_busy_retry_is_interrupted_by_a_shutdown(host: Host) -> None:
    """Its dmsetupRemove ends with the context: nothing is removed, and nothing is lost."""
    device = host.live("sb-1", host.make_ext4())
    whole, life = digest(device), host.life_of("sb-1")
    daemon = host.cli.daemon()
    with device.open("rb") as file:
        user = subprocess.Popen(["sleep", "600"], stdin=file)
    try:
        waiting = host.cli.fork("pause", "sb-1", "--wait", "--timeout", "3600")
        until(lambda: host.record("sb-1").failure is not None, "it is in use", timeout_s=60)
        assert daemon.terminate() == 0
        assert waiting.terminate() != 0
        assert (host.record("sb-1").state, life) == ("snapshotted", host.life_of("sb-1"))
    finally:
        user.kill()
        user.wait()
    assert whole == digest(device)
    host.cli("run", "--once", "--timeout", "60")
    assert host.record("sb-1").state == "paused"
    host.assert_nothing_in_kernel()
    host.assert_proved()


def test_apptainer_a_loop_with_another_offset_limit_or_flag_is_not_shared(host: Host) -> None:
    """Of the loops on a base, only one on the whole of it, read-only and byre's own, will do."""
    base = host.make_ext4()
    words = (("-r", "-o", "4096"), ("-r", "--sizelimit", "65536"), (), ("-r",))
    theirs = [tool("losetup", *each, "--find", "--show", base) for each in words]
    devices = [host.live(name, base) for name in ("sb-1", "sb-2")]
    ours = [loop for loop in host.loops_on(base) if loop.path not in theirs]
    assert [(loop.read_only, loop.size.to_bytes()) for loop in ours] == [
        (True, host.record("sb-1").base.size)
    ]
    assert {digest(device) for device in devices} == {digest(base)}
    host.cli("remove", "sb-1", "sb-2", "--wait")
    assert sorted(theirs) == sorted(loop.path for loop in host.loops_on(base))
    for path in theirs:
        tool("losetup", "-d", path)
    until(lambda: host.loops_on(base) == [], "no loop is left", timeout_s=60)


def test_wrenn_a_stale_device_of_the_same_name_gives_way_to_a_restore(host: Host) -> None:
    """One that byre itself left, without a table, is taken away; the data is what it was."""
    device = host.live("sb-1", host.make_ext4())
    with host.mounted(device) as at:
        (at / "note").write_text("kept")
    record = host.record("sb-1")
    host.cli("pause", "sb-1", "--wait")
    tool("dmsetup", "create", device.name, "--notable", "-u", f"BYRE-{record.id}-1")
    host.cli("restore", "sb-1", "--wait")
    with host.mounted(device) as at:
        assert (at / "note").read_text() == "kept"
    host.assert_proved()

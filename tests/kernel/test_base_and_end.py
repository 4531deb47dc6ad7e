"""A registered base under fs-verity, and disks on it that end: by their time, and idle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kernel.cli import Cli
from tests.kernel.host import MIB, Host, digest, tool

pytestmark = pytest.mark.kernel


def test_a_base_is_sealed_by_the_kernel_and_disks_on_it_end_when_they_shall(host: Host) -> None:
    base = host.make_ext4()
    store = host.make_file("verity.ext4", 48 * MIB)
    tool("mke2fs", "-q", "-t", "ext4", "-O", "verity", "-b", "4096", store)
    with host.mounted(store) as at:
        root = at / "root"
        root.mkdir(mode=0o700)
        host.root, host.cli = root, Cli(root, host.prefix)
        copy = sealed_copy(host, base)
        disk_on(host, copy, whole=digest(base))
        ends(host)
        host.assert_proved()
        host.cli.end_children()
        host.cli("remove", "sb-1", "sb-2", "--wait")
        # The loop that stays is the one that the root is mounted by.
        assert (host.dm_names(), host.loops_on(copy), host.cows()) == ([], [], [])
        host.cli("base", "remove", "debian")
        assert list((root / "bases").iterdir()) == []


def sealed_copy(host: Host, base: Path) -> Path:
    """Register a copy, and show that not even root can write to it."""
    added = host.cli("base", "add", base, "--name", "debian", "--copy", "-o", "json").json
    assert (added["sha256"], added["condition"]) == (digest(base), "intact")
    assert added["verity"].startswith("sha256:"), added["verity_why"]
    copy = Path(added["path"])
    with pytest.raises(PermissionError):
        os.open(copy, os.O_RDWR)
    plain = host.cli("base", "add", base, "-o", "json").json
    assert (plain["name"], plain["verity"], plain["path"]) == ("base", None, str(base))
    assert base.stat().st_mode & 0o222 == 0
    with pytest.raises(AssertionError, match=r"Operation not supported|Inappropriate ioctl"):
        host.cli("base", "add", base, "--name", "insisted", "--verity", "on")
    return copy


def disk_on(host: Host, copy: Path, *, whole: str) -> None:
    """Have a disk on the copy by its name, and show that the base cannot go."""
    device = host.live("sb-1", Path("base:debian"))
    assert whole == digest(device)
    record = host.record("sb-1")
    assert (record.spec["base"], record.base.sha256) == (str(copy), whole)
    refused = host.cli("base", "remove", "debian", expect=4)
    assert "in use by sb-1" in refused.err
    [verified] = host.cli("base", "verify", "debian", "-o", "json").json
    assert (verified["condition"], verified["disks"]) == ("intact", ["sb-1"])


def ends(host: Host) -> None:
    """Let one disk expire and one be idle, while the watchers alone wake the reconciler."""
    device = host.live("sb-2", Path("base:debian"), "--direct-io")
    cow = Path(host.record("sb-2").cow_path)
    for number in range(3):  # a new exception, and then one that is there
        before = cow.stat().st_mtime_ns
        host.write(device, 4096 * (number // 2), b"the kernel moves the mtime")
        assert cow.stat().st_mtime_ns > before
    host.cli.daemon()
    held = host.open(device)  # not before: a forked reconciler would have it open, too
    words = ("--base", "base:debian", "--direct-io", "--idle-pause", "2s")
    host.cli("create", "sb-2", *words)
    host.cli("extend", "sb-1", "--ttl", "1s")
    host.until_settled("sb-1", "paused", timeout_s=60)
    assert host.record("sb-2").state == "snapshotted", "somebody has it open"
    held.close()
    host.until_settled("sb-2", "paused", timeout_s=60)
    lapsed = {name: host.cli("get", name, "-o", "json").json[0] for name in ("sb-1", "sb-2")}
    assert lapsed["sb-1"]["lifetime"]["lapsed"] == "expired"
    assert lapsed["sb-2"]["lifetime"]["lapsed"] == "idle"

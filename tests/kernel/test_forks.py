"""Forks on the real kernel: byte for byte what their source was, at one moment."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.cli import Cli, until
from tests.kernel.counting import assert_of_one_moment, counting
from tests.kernel.host import MIB, Host, digest, tool

pytestmark = pytest.mark.kernel

SIZE = 16 * MIB
FORKS = ("sb-2", "sb-3")


def scatter(device: Path, seed: int) -> None:
    """Write pieces of many sizes at many places, zeros among them; they may stay in the cache."""
    dice = random.Random(seed)  # noqa: S311 - the same pieces each time
    with device.open("r+b", buffering=0) as file:
        for number in range(200):
            size = dice.choice([512, 4096, 5000, 65536])
            file.seek(dice.randrange(0, SIZE - size))
            file.write(bytes(size) if number % 5 == 0 else dice.randbytes(size))


@contextlib.contextmanager
def sharing(host: Host) -> Iterator[Path]:
    """Mount a file system whose files can share blocks, for a while."""
    image, at = host.make_file("btrfs.img", 512 * MIB), host.folder / "btrfs"
    tool("mkfs.btrfs", "-q", image)
    at.mkdir()
    tool("mount", "-o", "loop", image, at)
    try:
        yield at
    finally:
        tool("umount", "--lazy", at)


def test_forks_of_a_live_and_of_a_paused_disk_are_what_dd_says(host: Host) -> None:
    device = host.live("sb-1", host.make_ext4(size=SIZE))
    with host.mounted(device) as at:
        (at / "data").write_bytes(os.urandom(MIB))
    scatter(device, 1)
    first = host.folder / "first.img"
    said = host.cli("fork", "sb-1", *FORKS, "--wait", "-o", "json").json
    tool("dd", f"if={device}", f"of={first}", "bs=1M", "status=none")
    assert [each["state"] for each in said] == ["restored", "restored"]
    assert {each["parent"]["how"] for each in said} == {"sparse-copy"}
    assert said[0]["parent"]["frozen_ms"] > 0
    for name in FORKS:
        tool("cmp", first, host.device(name))
    record = host.record("sb-1")
    live = host.kernel.dm(device.name)
    assert live is not None
    assert not live.suspended
    assert record.state == "snapshotted"

    scatter(device, 2)
    scatter(host.device("sb-2"), 3)
    shown = digest(device)
    tool("cmp", first, host.device("sb-3"))
    host.cli("pause", "sb-1", "sb-2", "--wait")
    host.cli("fork", "sb-1", "sb-4", "--wait")
    host.cli("fork", "sb-2", "sb-5", "--state", "paused", "--wait")
    host.cli("restore", "sb-1", "sb-2", "sb-5", "--wait")
    assert shown == digest(host.device("sb-4")) == digest(device)
    assert shown != digest(first)
    tool("cmp", host.device("sb-2"), host.device("sb-5"))
    assert host.cli("fsck", "sb-4", "-o", "json").json["sound"]
    host.assert_proved()
    host.cli("remove", "sb-1", "sb-2", "sb-3", "sb-4", "sb-5", "--wait")
    host.assert_nothing_left()


def test_forks_of_a_disk_that_is_written_to_are_of_one_moment(host: Host) -> None:
    """Beside a running reconciler: two counters that are written together are the same."""
    device = host.live("sb-1", host.make_file("base", SIZE))
    daemon = host.cli.daemon()
    with counting(device, SIZE):
        host.cli("fork", "sb-1", *FORKS, "--wait")
    assert_of_one_moment(host.device(FORKS[0]))
    tool("cmp", host.device(FORKS[0]), host.device(FORKS[1]))
    assert daemon.terminate() == 0
    host.cli("remove", "sb-1", *FORKS, "--wait")
    host.assert_nothing_left()


def test_a_disk_goes_back_to_its_points_byte_for_byte(host: Host) -> None:
    """Live and beside a reconciler, with a file system on it; the points go with the disk."""
    device = host.live("sb-1", host.make_ext4(size=SIZE))
    with host.mounted(device) as at:
        (at / "data").write_bytes(os.urandom(MIB))
    shown = digest(device)
    host.cli("checkpoint", "sb-1", "clean")
    scatter(device, 1)
    spoilt = digest(device)
    host.cli("checkpoint", "sb-1", "--keep", 2)
    daemon = host.cli.daemon()
    host.cli("restore", "sb-1", "--to", "clean", "--wait")
    until(device.exists, "udev has let go of the node's name, and it is there again")
    assert shown == digest(device)
    with host.mounted(device) as at:
        assert (at / "data").stat().st_size == MIB
        (at / "more").write_bytes(os.urandom(MIB))
    host.cli("fork", "sb-1@clean", "sb-2", "--wait")
    assert shown == digest(host.device("sb-2"))
    host.cli("restore", "sb-1", "--to", "p1", "--wait")
    until(device.exists, "udev has let go of the node's name, and it is there again")
    assert spoilt == digest(device)
    assert daemon.terminate() == 0
    assert host.cli("fsck", "sb-1", "-o", "json").json["sound"]
    points = host.cli("points", "sb-1", "-o", "json").json
    assert [each["name"] for each in points] == ["clean", "p1"]
    host.assert_proved()
    host.cli("remove", "sb-1", "sb-2", "--wait")
    host.assert_nothing_left()


def test_forks_share_their_blocks_where_the_file_system_can(host: Host) -> None:
    base = host.make_file("base", SIZE)
    with sharing(host) as at:
        cli = Cli(at / "root", host.prefix)
        cli("create", "sb-1", "--base", base, "--wait")
        device = host.device("sb-1")
        with device.open("r+b") as file:
            file.write(os.urandom(8 * MIB))
        cli("pause", "sb-1", "--wait")
        tool("sync", "-f", at)
        before = os.statvfs(at).f_bfree
        said = cli("fork", "sb-1", *FORKS, "sb-4", "sb-5", "--wait", "-o", "json").json
        assert {each["parent"]["how"] for each in said} == {"reflink"}
        cli("restore", "sb-1", "--wait")
        for each in said:
            tool("cmp", device, each["device"])
        tool("sync", "-f", at)
        assert (before - os.statvfs(at).f_bfree) * 4096 < 8 * MIB
        [more] = cli("fork", "sb-1", "sb-6", "--wait", "-o", "json").json
        assert more["parent"]["how"] == "reflink"
        assert more["parent"]["frozen_ms"] > 0
        tool("cmp", device, more["device"])
        cli("remove", "sb-1", *FORKS, "sb-4", "sb-5", "sb-6", "--wait")
        assert list((at / "root" / "cow").iterdir()) == []

"""The whole life of one disk, by commands, on a real device-mapper."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

from statemachine.observed import SnapshotHealth
from tests.kernel.cli import until
from tests.kernel.host import MIB, Host, digest

pytestmark = pytest.mark.kernel


def write_random(path: Path, size: int) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
        file.write(os.urandom(size % MIB))
        file.flush()
        os.fsync(file.fileno())


def test_one_disk_lives_by_commands_and_leaves_nothing(host: Host) -> None:
    link = host.folder / "links" / "sb-1" / "rootfs.link"
    device = host.live("sb-1", host.make_ext4(), "--link", link)
    assert device.resolve() == link.resolve()
    with host.mounted(link) as at:
        write_random(at / "data", 2 * MIB)
        written = digest(at / "data")
    whole = digest(device)

    host.cli("pause", "sb-1", "--wait")
    host.assert_nothing_in_kernel()
    assert not link.is_symlink()
    assert not link.parent.parent.exists()
    assert len(host.cows()) == 1

    host.cli("restore", "sb-1", "--wait")
    assert whole == digest(device)
    with host.mounted(link) as at:
        assert written == digest(at / "data")

    host.assert_proved()
    host.cli("remove", "sb-1", "--wait", "--reason", "sandbox ended")
    host.assert_nothing_left()
    assert not link.parent.parent.exists()
    host.assert_proved()


def test_the_history_tells_a_life_in_order_with_intent_before_outcome(host: Host) -> None:
    host.live("sb-1", host.make_ext4())
    for command in ("pause", "restore", "remove"):
        host.cli(command, "sb-1", "--wait")
    events = host.cli("history", "sb-1", "-o", "jsonl").out.splitlines()
    assert len(host.history("sb-1")) == len(events)
    assert host.story("sb-1") == [
        "declared live",
        "started attach",
        "completed attach",
        "started snapshot",
        "completed snapshot",
        "declared paused",
        "started pause",
        "completed pause",
        "declared live",
        "started restore",
        "completed restore",
        "declared removed",
        "started remove",
        "completed remove",
    ]
    assert all(before.at <= after.at for before, after in pairwise(host.history("sb-1")))


def test_a_mounted_disk_blocks_its_pause_names_the_mount_and_goes_on_after_umount(
    host: Host,
) -> None:
    link = host.folder / "sb-1.link"
    device = host.live("sb-1", host.make_ext4(), "--link", link)
    with host.mounted(device) as at:
        answer = host.cli("pause", "sb-1", "--wait", "--timeout", "1", expect=5)
        assert f"mount {at}" in answer.err
        [disk] = host.cli("get", "sb-1", "-o", "json").json
        assert "Blocked" in [each["type"] for each in disk["conditions"]]
        assert f"mount {at}" in host.cli("explain", "sb-1", "-o", "json").json["holders"]
        assert link.is_symlink()
        waiting = host.cli.fork("pause", "sb-1", "--wait")
        until(lambda: "unchanged" in waiting.output, "the second command waits")
    assert waiting.wait() == 0
    host.until_settled("sb-1", "paused", timeout_s=1)
    host.assert_nothing_in_kernel()
    assert not link.is_symlink()


@pytest.mark.parametrize("size", [8 * MIB, 8 * MIB + 512, 33 * MIB - 512])
def test_a_disk_rewritten_as_a_whole_stays_valid(host: Host, size: int) -> None:
    device = host.live("sb-1", host.make_file("base", size))
    write_random(device, size)
    whole = digest(device)
    seen = host.kernel.dm(device.name)
    assert seen is not None
    assert seen.status is not None
    assert seen.status.health == SnapshotHealth.VALID
    host.cli("pause", "sb-1", "--wait")
    host.cli("restore", "sb-1", "--wait")
    assert whole == digest(device)

"""What somebody does to an attached or paused disk by hand: repaired if it is ours, else told.

One test for each kind of interference; `test_interference_live` has those of live disks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.cli import until
from tests.kernel.host import Host, tool
from tests.kernel.meddling import (
    LONG_S,
    SECTORS,
    assert_note,
    assert_repaired,
    half_made,
    make_attached,
    make_paused,
    uuid,
    write_note,
)

pytestmark = pytest.mark.kernel


# --- an attached disk ----------------------------------------------------------------------------


@pytest.mark.parametrize("loaded", [False, True])
def test_attached_with_a_half_made_device_loses_it(host: Host, *, loaded: bool) -> None:
    make_attached(host)
    before, seq = host.loops(), host.last_seq()
    name = half_made(host, loaded=loaded)
    assert_repaired(host, seq, f"half-made device {name}")
    assert (host.dm_names(), host.nodes()) == ([], [])
    assert before == host.loops()


def test_attached_with_a_half_made_device_goes_live(host: Host) -> None:
    make_attached(host)
    half_made(host, loaded=True)
    host.cli("create", "sb-1", "--base", host.folder / "base.ext4", "--wait")
    write_note(host, host.device("sb-1"))
    host.assert_proved()


def test_attached_whose_loops_were_detached_by_hand_gets_them_back(host: Host) -> None:
    cow = make_attached(host)
    seq = host.last_seq()
    for loop in host.loops():
        tool("losetup", "-d", loop.path)
    host.cli("run", "--once")
    assert host.story("sb-1", seq) == ["detected lose", "started attach", "completed attach"]
    assert len(host.loops_on(cow)) == 1
    assert len(host.loops()) == 2


def test_attached_whose_cow_file_was_deleted_is_faulted(host: Host) -> None:
    cow = make_attached(host)
    cow.unlink()
    host.cli("run", "--once", expect=1)
    assert f"{cow} is missing" in host.cli("explain", "sb-1", "-o", "json").json["blocker"]
    assert not cow.exists()


def test_attached_and_made_live_by_hand_is_found(host: Host) -> None:
    cow = make_attached(host)
    [own], [base] = host.loops_on(cow), host.loops_on(host.folder / "base.ext4")
    table, seq = f"0 {SECTORS} snapshot {base.device} {own.device} P 8", host.last_seq()
    device = host.device("sb-1")
    tool("dmsetup", "create", device.name, "--uuid", uuid(host), "--table", table)
    host.cli("create", "sb-1", "--base", host.folder / "base.ext4", "--wait")
    assert host.record("sb-1").state == "snapshotted"
    assert "detected find" in host.story("sb-1", seq)
    write_note(host, device)
    assert_note(host)


# --- a paused disk -------------------------------------------------------------------------------


@pytest.mark.parametrize("loaded", [False, True])
def test_paused_with_a_half_made_device_loses_it(host: Host, *, loaded: bool) -> None:
    make_paused(host)
    seq = host.last_seq()
    name = half_made(host, loaded=loaded)
    assert_repaired(host, seq, f"half-made device {name}")
    host.assert_nothing_in_kernel()


def test_paused_with_a_half_made_device_comes_live(host: Host) -> None:
    make_paused(host)
    half_made(host, loaded=True)
    host.cli("restore", "sb-1", "--wait")
    assert_note(host)
    host.assert_proved()


def test_paused_whose_cow_file_was_deleted_is_faulted(host: Host) -> None:
    cow = make_paused(host)
    cow.unlink()
    host.cli("run", "--once", expect=1)
    assert f"{cow} is missing" in host.cli("explain", "sb-1", "-o", "json").json["blocker"]
    host.assert_nothing_left()


@pytest.mark.parametrize("make", [make_attached, make_paused])
def test_a_second_loop_blocks_until_it_is_detached_and_then_all_goes_on(
    host: Host, make: Callable[[Host], Path]
) -> None:
    cow = make(host)
    second = tool("losetup", "--find", "--show", "--read-only", cow)
    base = host.folder / "base.ext4"
    live = ("create", "sb-1", "--base", base, "--desired", "live", "--wait", "--timeout", "5")
    host.cli(*live, expect=5)
    told = host.cli("explain", "sb-1", "-o", "json").json
    assert second in told["blocker"]
    assert f"losetup -d {second}" in told["hint"]
    assert second in told["holders"]
    assert second in told["observed"]["other_loops"]
    assert host.dm_names() == []

    daemon = host.cli.daemon()
    tool("losetup", "-d", second)
    state = "snapshotted" if make is make_attached else "restored"
    host.until_settled("sb-1", state, timeout_s=LONG_S)
    assert daemon.terminate() == 0
    host.assert_proved()


def test_paused_and_brought_live_by_hand_is_found_and_left_to_its_user(host: Host) -> None:
    cow = make_paused(host)
    loops = [
        tool("losetup", "--find", "--show", "--read-only", host.folder / "base.ext4"),
        tool("losetup", "--find", "--show", cow),
    ]
    table, seq = f"0 {SECTORS} snapshot {' '.join(loops)} P 8", host.last_seq()
    device = host.device("sb-1")
    tool("dmsetup", "create", device.name, "--uuid", uuid(host), "--table", table)
    with host.mounted(device):
        host.cli("run", "--once", "--timeout", "2", expect=5)
        assert host.story("sb-1", seq)[0] == "detected find"
        told = host.cli("explain", "sb-1", "-o", "json").json
        assert any("mount" in holder for holder in told["holders"])
        assert [device.name] == host.dm_names()
    daemon = host.cli.daemon()
    host.until_settled("sb-1", "paused", timeout_s=LONG_S)
    assert daemon.terminate() == 0
    until(lambda: host.dm_names() == [], "the device is gone", timeout_s=LONG_S)
    for loop in loops:
        tool("losetup", "-d", loop)
    host.cli("restore", "sb-1", "--wait")
    assert_note(host)

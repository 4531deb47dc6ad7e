"""What somebody does to a live disk by hand is seen as what it is: repaired if ours, else told.

One test for each kind of interference. How a running reconciler is woken by it is in
`test_healing`; what happens to a disk whose data is damaged in `test_dropouts`.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.kernel.host import MIB, Host, tool
from tests.kernel.meddling import (
    PLANTED,
    SECTORS,
    assert_note,
    assert_refused,
    assert_repaired,
    make_live,
    node_of,
    number_of,
)

pytestmark = pytest.mark.kernel


# --- a live disk: its device ---------------------------------------------------------------------


def test_live_suspended_by_hand_is_resumed(host: Host) -> None:
    device, seq = make_live(host), host.last_seq()
    tool("dmsetup", "suspend", "--noudevsync", device.name)
    assert_repaired(host, seq, "is suspended")
    assert_note(host)


@pytest.mark.parametrize("target", ["zero", "another base"])
def test_live_with_another_table_is_faulted_and_left_alone(host: Host, target: str) -> None:
    device, other = make_live(host), host.make_file("other", 8 * MIB)
    own = tool("dmsetup", "table", device.name)
    loop = tool("losetup", "--find", "--show", "--read-only", other)
    number = number_of(Path(loop))
    tables = {
        "zero": f"0 {SECTORS} zero",
        "another base": own.replace(own.split()[3], f"{os.major(number)}:{os.minor(number)}"),
    }
    tool("dmsetup", "suspend", "--noudevsync", device.name)
    tool("dmsetup", "load", device.name, "--table", tables[target])
    tool("dmsetup", "resume", "--noudevsync", device.name)
    wrong = tool("dmsetup", "table", device.name)
    assert wrong != own
    assert_refused(host, "identity-mismatch", device.name)
    assert wrong == tool("dmsetup", "table", device.name)

    tool("dmsetup", "remove", "--retry", device.name)
    tool("losetup", "-d", loop)
    for each in host.loops():
        if not each.read_only and not each.autoclear:
            tool("losetup", "-d", each.path)
    host.cli("retry", "sb-1", "--wait")
    assert_note(host)


def test_live_whose_minor_was_given_to_another_device_gets_a_new_one(host: Host) -> None:
    device = make_live(host)
    number, seq = number_of(node_of(device)), host.last_seq()
    foreign = f"{host.prefix}foreign"
    tool("dmsetup", "remove", "--retry", device.name)
    major, minor = os.major(number), os.minor(number)
    tool("dmsetup", "create", foreign, "-j", major, "-m", minor, "--table", "0 8 zero")
    device.unlink(missing_ok=True)
    device.symlink_to(f"../dm-{minor}")
    host.cli("run", "--once")
    assert host.story("sb-1", seq)[0] == "detected lose"
    assert number_of(node_of(device)) != number
    assert_note(host)
    assert tool("dmsetup", "table", foreign) == "0 8 zero"
    tool("dmsetup", "remove", "--retry", foreign)


# --- a live disk: its nodes ----------------------------------------------------------------------


def test_live_without_its_mapper_link_gets_it_back(host: Host) -> None:
    device, seq = make_live(host), host.last_seq()
    device.unlink()
    assert_repaired(host, seq, "does not lead to")
    assert_note(host)


def test_live_without_its_kernel_node_gets_it_back(host: Host) -> None:
    device = make_live(host)
    node, seq = node_of(device), host.last_seq()
    node.unlink()
    assert_repaired(host, seq, f"{node} is missing")
    assert_note(host)


def test_live_whose_kernel_node_is_of_another_device_is_refused_and_told(host: Host) -> None:
    device = make_live(host)
    node = node_of(device)
    own = number_of(node)
    node.unlink()
    os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(1, 15))
    assert_refused(host, "foreign-device", node)
    assert number_of(node) == os.makedev(1, 15)
    node.unlink()
    host.cli("run", "--once")
    assert number_of(node) == own
    assert_note(host)


def test_live_whose_mapper_link_leads_to_another_device_is_led_back(host: Host) -> None:
    device, foreign = make_live(host), f"{host.prefix}foreign"
    node = node_of(device)
    tool("dmsetup", "create", foreign, "--table", "0 8 zero")
    seq = host.last_seq()
    device.unlink()
    device.symlink_to(f"../{node_of(device.with_name(foreign)).name}")
    assert_repaired(host, seq, "does not lead to")
    assert node_of(device) == node
    assert tool("dmsetup", "table", foreign) == "0 8 zero"
    tool("dmsetup", "remove", "--retry", foreign)


@pytest.mark.parametrize("what", ["node", "file"])
def test_live_whose_mapper_name_is_taken_by_something_else_is_refused_and_told(
    host: Host, what: str
) -> None:
    device = make_live(host)
    device.unlink()
    away = PLANTED[what](device)
    assert_refused(host, "foreign-device", device)
    assert not device.is_symlink()
    away()
    host.cli("run", "--once")
    assert_note(host)


# --- a live disk: its link, its files ------------------------------------------------------------


@pytest.mark.parametrize("what", ["node", "folder"])
def test_live_whose_link_was_replaced_is_refused_and_told(host: Host, what: str) -> None:
    link = host.folder / "links" / "sb-1"
    device = make_live(host, "--link", link)
    link.unlink()
    away = PLANTED[what](link)
    planted = link.lstat()
    assert_refused(host, "foreign-device", link)
    assert (planted.st_ino, planted.st_mode) == (link.lstat().st_ino, link.lstat().st_mode)
    assert_note(host)
    away()
    host.cli("run", "--once")
    assert str(device) == str(link.readlink())


def test_live_whose_cow_file_was_deleted_is_faulted_and_goes_on(host: Host) -> None:
    device = make_live(host)
    [cow] = (host.root / "cow").iterdir()
    [loop] = host.loops_on(cow)
    cow.unlink()
    answer = host.cli("run", "--once", expect=1)
    told = host.cli("explain", "sb-1", "-o", "json").json
    assert f"{cow} is missing" in told["blocker"]
    assert loop.path in told["hint"]
    assert loop.path in answer.err
    assert [device.name] == host.dm_names()
    assert_note(host)
    assert list((host.root / "cow").iterdir()) == []


def test_live_with_a_second_loop_on_its_cow_file_is_told(host: Host) -> None:
    make_live(host)
    [cow] = (host.root / "cow").iterdir()
    second = tool("losetup", "--find", "--show", "--read-only", cow)
    told = host.cli("explain", "sb-1", "-o", "json").json
    assert [second] == told["observed"]["other_loops"]
    host.cli("run", "--once")
    assert second in [loop.path for loop in host.loops()]
    tool("losetup", "-d", second)
    assert_note(host)

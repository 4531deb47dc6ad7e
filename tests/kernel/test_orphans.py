"""Orphans on the real device-mapper: found, told of once, refused while in use, removed by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.api import Byre
from tests.kernel.cli import until
from tests.kernel.host import Host, tool

pytestmark = pytest.mark.kernel


def lose_the_log(host: Host) -> None:
    """Do what happens when somebody deletes a root's log under live disks."""
    for file in host.root.glob("byre.db*"):
        file.unlink()


def orphans(host: Host) -> dict[str, str]:
    """Return what this test's root has to say, without other tests' devices."""
    found = host.cli("orphans", "-o", "json").json
    return {each["name"]: each["kind"] for each in found if not each["name"].startswith("byre-x")}


def test_what_a_lost_log_leaves_is_found_and_removed_by_name(host: Host) -> None:
    device = host.live("sb-1", host.make_ext4())
    assert orphans(host) == {}
    [cow] = host.cows()
    [cow_loop] = [loop for loop in host.loops() if not loop.read_only]
    lose_the_log(host)
    loop = f"loop{cow_loop.number}"
    assert orphans(host) == {device.name: "dm", loop: "loop", cow: "file"}
    with host.mounted(device):
        answer = host.cli("orphans", "--remove", device.name, expect=4)
        assert "in use by mount" in answer.err
    assert "in use" in host.cli("orphans", "--remove", cow, expect=4).err
    host.cli("orphans", "--remove", device.name, "--reason", "the log was lost")
    until(lambda: not [x for x in host.loops() if not x.read_only], "the CoW's loop goes along")
    assert orphans(host) == {cow: "file"}
    host.cli("orphans", "--remove", cow)
    assert (orphans(host), host.cows(), host.dm_names(), host.nodes()) == ({}, [], [], [])
    host.cli("orphans", "--remove", cow, expect=3)
    with Byre(host.root, read_only=True) as byre:
        told = byre.log.select("WHERE type = 'orphan.resolved' ORDER BY seq")
    assert [event.data["name"] for event in told] == [device.name, cow]


def test_a_running_reconciler_tells_of_an_orphan_once(host: Host) -> None:
    cow = host.root / "cow" / f"{'ab' * 16}-1.cow"
    cow.parent.mkdir(parents=True)
    cow.touch()
    daemon = host.cli.daemon()
    until(lambda: "orphan.found" in host.types_after(0), "the orphan is in the log")
    daemon.terminate()
    host.cli.daemon().terminate()
    assert host.types_after(0).count("orphan.found") == 1


def test_a_renamed_device_is_adopted_by_its_disk(host: Host) -> None:
    device = host.live("sb-1", host.make_ext4())
    with host.mounted(device) as at:
        (at / "note").write_text("kept")
    renamed = f"{host.prefix}renamed"
    tool("dmsetup", "rename", device.name, renamed)
    assert orphans(host) == {renamed: "dm"}
    host.cli("orphans", "--adopt", renamed)
    host.cli("run", "--once")
    with host.mounted(device) as at:
        assert (at / "note").read_text() == "kept"
    assert orphans(host) == {}


def test_a_foreign_device_with_a_confusing_name_is_no_orphan(host: Host) -> None:
    host.live("sb-1", host.make_ext4())
    name = f"{host.prefix}foreign"
    tool("dmsetup", "create", name, "--table", "0 2048 zero")
    assert orphans(host) == {}
    host.cli("orphans", "--remove", name, expect=3)
    assert name in host.dm_names()
    assert Path("/dev/mapper", name).exists()

"""Orphans on the real device-mapper: found, told of once, refused while in use, removed by name."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from reconciler.api import Byre
from statemachine.head import HEAD_NAME
from tests.kernel.cli import until
from tests.kernel.host import Host, tool

pytestmark = pytest.mark.kernel


def lose_the_log(host: Host) -> None:
    """Do what happens when somebody deletes a root's log under live disks."""
    for file in [*host.root.glob("byre.db*"), host.root / HEAD_NAME]:
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


def test_live_disks_of_a_lost_log_are_adopted_while_they_are_in_use(host: Host) -> None:
    base = host.make_ext4()
    devices = [host.live(name, base) for name in ("sb-1", "sb-2")]
    records = [host.record(name) for name in ("sb-1", "sb-2")]
    seen = host.kernel_side()
    with host.mounted(devices[0]) as at:
        (at / "note").write_text("kept")
        lose_the_log(host)
        host.cli("run", "--once")
        assert seen["dm lives"] == host.kernel_side()["dm lives"]
        host.cli("orphans", "--adopt", devices[0].name, "--reason", "the log was lost")
        host.cli("orphans", "--adopt", f"{records[1].id}-1.cow", "--as", "other")
        assert seen["dm lives"] == host.kernel_side()["dm lives"]
    assert orphans(host) == {}
    first, second = host.record("sb-1"), host.record("other")
    assert [(r.id, r.generation) for r in records] == [
        (r.id, r.generation) for r in (first, second)
    ]
    assert {"restored"} == {first.state, second.state}
    assert str(devices[1]) == second.device
    host.assert_proved()

    host.cli("pause", "sb-1", "--wait")
    host.cli("restore", "sb-1", "--wait")
    with host.mounted(devices[0]) as at:
        assert (at / "note").read_text() == "kept"
    host.cli("remove", "sb-1", "other", "--wait")
    # The base's loop had the marker of the lost log; it goes with the last device on it.
    until(lambda: host.loops() == [], "no loop is left", timeout_s=60)
    host.assert_nothing_left()


def test_a_cow_file_alone_is_adopted_as_a_paused_disk(host: Host) -> None:
    base = host.make_ext4()
    device = host.live("sb-1", base)
    with host.mounted(device) as at:
        (at / "note").write_text("kept")
    host.cli("pause", "sb-1", "--wait")
    lose_the_log(host)
    [cow] = host.cows()
    host.cli("orphans", "--adopt", cow, expect=2)
    host.cli("orphans", "--adopt", cow, "--as", "sb-2", "--base", base)
    assert host.record("sb-2").state == "paused"
    with host.mounted(host.live("sb-2", base)) as at:
        assert (at / "note").read_text() == "kept"
    assert orphans(host) == {}
    host.assert_proved()


def test_a_disk_is_adopted_beside_a_running_reconciler_that_goes_on_with_it(host: Host) -> None:
    device = host.live("sb-1", host.make_ext4())
    lose_the_log(host)
    daemon = host.cli.daemon()
    until(lambda: "orphan.found" in host.types_after(0), "it is found", timeout_s=60)
    device.unlink()
    host.cli("orphans", "--adopt", device.name)
    until(device.is_symlink, "its link is back", timeout_s=60)
    host.until_settled("sb-1", "restored", timeout_s=60)
    assert daemon.terminate() == 0
    assert "orphan.resolved" in host.types_after(0)
    host.assert_proved()


def test_an_older_log_under_live_disks_is_refused_then_catches_up_and_tears_nothing_down(
    host: Host,
) -> None:
    base, older = host.make_ext4(), host.folder / "older.db"
    host.cli("create", "sb-1", "--base", base)
    with contextlib.closing(sqlite3.connect(host.root / "byre.db")) as log:
        log.execute("VACUUM INTO ?", (str(older),))
    host.cli("run", "--once")
    devices = [host.device("sb-1"), host.live("sb-2", base)]
    seen = host.kernel_side()
    with host.mounted(devices[0]) as at:
        (at / "note").write_text("kept")
        for file in host.root.glob("byre.db*"):
            file.unlink()
        shutil.copy(older, host.root / "byre.db")
        # What was acknowledged is not there: only a person's word makes this the log.
        assert "older copy" in host.cli("run", "--once", expect=6).err
        (host.root / HEAD_NAME).unlink()
        host.cli("run", "--once")
        assert seen["dm lives"] == host.kernel_side()["dm lives"]
    assert host.record("sb-1").state == "restored"
    assert host.story("sb-1")[:3] == ["declared live", "detected find", "detected find"]
    assert devices[1].name in orphans(host)
    host.cli("orphans", "--adopt", devices[1].name)
    assert orphans(host) == {}
    assert seen["dm lives"] == host.kernel_side()["dm lives"]
    host.assert_proved()


def test_a_foreign_device_with_a_confusing_name_is_no_orphan(host: Host) -> None:
    host.live("sb-1", host.make_ext4())
    name = f"{host.prefix}foreign"
    tool("dmsetup", "create", name, "--table", "0 2048 zero")
    assert orphans(host) == {}
    host.cli("orphans", "--remove", name, expect=3)
    assert name in host.dm_names()
    assert Path("/dev/mapper", name).exists()

"""Whatever somebody does behind a running reconciler's back is seen by its watchers and healed.

The full resync comes every ten minutes here, so none of it is the resync's work.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.kernel.cli import Child, until
from tests.kernel.host import Host, digest, tool

pytestmark = pytest.mark.kernel

SOON_S = 10.0


@pytest.fixture
def daemon(host: Host) -> Child:
    return host.cli.daemon()


@pytest.fixture
def link(host: Host) -> Path:
    return host.folder / "links" / "sb-1.link"


@pytest.fixture
def device(host: Host, daemon: Child, link: Path) -> Path:
    """A live disk of the running reconciler."""
    assert daemon.is_alive
    return host.live("sb-1", host.make_ext4(), "--link", link)


def assert_drift_came_first(story: list[str]) -> None:
    """Check that every repair stands after the drift that called for it."""
    assert story
    assert story[0].startswith("detected "), story
    repairs = ("started repair", "started restore", "started attach")
    for before, after in itertools.pairwise(story):
        if after in repairs:
            assert before.startswith("detected "), story


def until_healed(host: Host, seq: int) -> None:
    """Wait for the end of the repair that the drift after an event called for."""
    done = ("completed repair", "completed restore", "completed attach")
    what = f"{done} after event {seq}"
    until(lambda: host.story("sb-1", seq)[-1:] in [[each] for each in done], what, timeout_s=SOON_S)


def test_a_device_removed_by_hand_comes_back_with_its_data(host: Host, device: Path) -> None:
    with host.mounted(device) as at:
        (at / "note").write_text("kept")
    whole, seq = digest(device), host.last_seq()
    tool("dmsetup", "remove", "--retry", device.name)
    until_healed(host, seq)
    # dmsetup ends with taking the symlink away (_rm_dev_node in libdm-common.c), the new one, too.
    until(device.exists, "the symlink is back for good", timeout_s=SOON_S)
    until_healed(host, seq)
    assert whole == digest(device)
    story = host.story("sb-1", after=seq)
    assert story[:3] == ["detected lose", "started restore", "completed restore"]
    assert set(story[3:]) <= {"detected repair", "started repair", "completed repair"}
    host.assert_proved()


def test_the_loop_of_an_attached_disk_detached_by_hand_comes_back(
    host: Host, daemon: Child
) -> None:
    assert daemon.is_alive
    host.cli("create", "sb-1", "--base", host.make_ext4(), "--desired", "attached", "--wait")
    number, seq = host.record("sb-1").cow_loop, host.last_seq()
    tool("losetup", "-d", f"/dev/loop{number}")
    until_healed(host, seq)
    story = host.story("sb-1", after=seq)
    assert story == ["detected lose", "started attach", "completed attach"]
    assert len(host.loops()) == 2
    host.assert_proved()


def test_the_base_loop_of_an_attached_disk_detached_by_hand_comes_back(
    host: Host, daemon: Child
) -> None:
    assert daemon.is_alive
    base = host.make_ext4()
    host.cli("create", "sb-1", "--base", base, "--desired", "attached", "--wait")
    [loop], seq = host.loops_on(base), host.last_seq()
    tool("losetup", "-d", loop.path)
    until_healed(host, seq)
    assert len(host.loops_on(base)) == 1
    assert_drift_came_first(host.story("sb-1", after=seq))


def test_a_deleted_link_comes_back(host: Host, device: Path, link: Path) -> None:
    seq = host.last_seq()
    link.unlink()
    until_healed(host, seq)
    assert str(device) == str(link.readlink())
    assert_drift_came_first(host.story("sb-1", after=seq))


def test_a_deleted_folder_of_a_link_comes_back(host: Host, device: Path, link: Path) -> None:
    link.unlink()
    link.parent.rmdir()
    until(link.is_symlink, "the link is back", timeout_s=SOON_S)
    host.until_settled("sb-1", "snapshotted")
    assert device.resolve() == link.resolve()
    link.unlink()
    until(link.is_symlink, "the new folder is watched as well", timeout_s=SOON_S)


def test_a_link_that_leads_elsewhere_is_not_overwritten(
    host: Host, device: Path, link: Path
) -> None:
    link.unlink()
    link.symlink_to("/dev/null")
    until(lambda: host.record("sb-1").failure is not None, "it is refused", timeout_s=SOON_S)
    failure = host.record("sb-1").failure
    assert failure is not None
    assert (str(link.readlink()), failure.exit_code) == ("/dev/null", 4)
    assert device.is_symlink()


def test_a_file_in_place_of_a_link_is_refused_explained_and_kept(
    host: Host, device: Path, link: Path
) -> None:
    link.unlink()
    link.write_text("somebody's")
    until(lambda: host.record("sb-1").failure is not None, "it is refused", timeout_s=SOON_S)
    failure = host.record("sb-1").failure
    assert failure is not None
    assert (failure.kind, failure.exit_code) == ("foreign-device", 4)
    told = host.cli("explain", "sb-1", "-o", "json").json
    assert str(link) in told["blocker"]
    assert link.read_text() == "somebody's"
    assert device.is_symlink()

    link.unlink()
    until(link.is_symlink, "the link is back once its place is free", timeout_s=SOON_S)
    host.until_settled("sb-1", "snapshotted")
    assert device.resolve() == link.resolve()


def test_a_deleted_mapper_symlink_comes_back(host: Host, device: Path) -> None:
    # Without byre's rules udev is slower than byre, and may be about to make this very symlink.
    tool("udevadm", "settle")
    target, seq = device.readlink(), host.last_seq()
    device.unlink()
    until_healed(host, seq)
    assert target == device.readlink()
    assert_drift_came_first(host.story("sb-1", after=seq))


def test_a_suspended_device_goes_on_with_the_next_resync(host: Host) -> None:
    """The kernel tells nobody of a suspension (`test_dm_events`): the safety net has to see it."""
    host.cli.daemon("--resync", "2")
    device = host.live("sb-1", host.make_ext4())
    seq = host.last_seq()
    tool("dmsetup", "suspend", "--noudevsync", device.name)
    until_healed(host, seq)
    seen = host.kernel.dm(device.name)
    assert seen is not None
    assert not seen.suspended
    story = host.story("sb-1", after=seq)
    assert story == ["detected repair", "started repair", "completed repair"]

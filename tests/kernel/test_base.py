"""One base image, one read-only loop: shared, given back, and pinned."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.api import Byre
from reconciler.kernel.linux import LinuxKernel
from statemachine.names import base_marker
from tests.kernel.bomb import die
from tests.kernel.host import Host, digest, tool

pytestmark = pytest.mark.kernel


def test_disks_on_one_base_by_whatever_path_share_one_loop_until_the_last(host: Host) -> None:
    base = host.make_ext4()
    symlink, hard_link = base.with_name("symlink"), base.with_name("hard-link")
    symlink.symlink_to(base.name)
    hard_link.hardlink_to(base)
    for name, path in (("sb-1", base), ("sb-2", symlink), ("sb-3", hard_link)):
        host.live(name, path)
    [loop] = host.loops_on(base)
    assert loop.read_only
    assert len(host.loops()) == 4
    host.cli("remove", "sb-1", "--wait")
    host.cli("pause", "sb-2", "--wait")
    assert [loop] == host.loops_on(base)
    host.cli("pause", "sb-3", "--wait")
    host.assert_nothing_in_kernel()
    host.cli("restore", "sb-2", "sb-3", "--wait")
    assert len(host.loops_on(base)) == 1
    host.cli("remove", "sb-2", "sb-3", "--wait")
    host.assert_nothing_left()


def test_a_base_loop_detached_by_hand_while_in_use_is_taken_back_for_the_next_disk(
    host: Host,
) -> None:
    base = host.make_ext4()
    host.live("sb-1", base)
    [loop] = host.loops_on(base)
    tool("losetup", "-d", loop.path)
    [by_hand] = host.loops_on(base)
    assert by_hand.autoclear
    host.live("sb-2", base)
    assert [loop] == host.loops_on(base)
    host.cli("pause", "sb-1", "sb-2", "--wait")
    host.assert_nothing_in_kernel()


def test_a_base_whose_path_now_leads_to_a_copy_is_refused(host: Host) -> None:
    base = host.make_ext4()
    symlink = base.with_name("current.ext4")
    symlink.symlink_to(base.name)
    host.live("sb-1", symlink)
    host.cli("pause", "sb-1", "--wait")
    copy = base.with_name("copy.ext4")
    tool("cp", "--preserve=all", base, copy)
    symlink.unlink()
    symlink.symlink_to(copy.name)
    answer = host.cli("restore", "sb-1", "--wait", expect=4)
    assert f"inode {base.stat().st_ino}" in answer.err
    assert f"inode {copy.stat().st_ino}" in answer.err


def test_a_base_loop_that_a_killed_reconciler_left_is_given_back_by_the_next(host: Host) -> None:
    base = host.make_ext4()
    host.live("sb-1", base)
    child = host.cli.fork("pause", "sb-1", "--wait", before=_die_before_giving_back)
    assert child.wait() < 0
    assert len(host.loops_on(base)) == 1
    host.cli("run", "--once")
    host.assert_nothing_in_kernel()


def test_a_base_loop_of_this_root_that_no_disk_uses_is_swept_at_the_start(host: Host) -> None:
    base = host.make_ext4()
    host.cli("run", "--once")
    with Byre(host.root, read_only=True) as byre:
        marker = base_marker(byre.log.root_id)
    identity = host.kernel.identify(base)
    assert identity is not None
    host.kernel.loop_attach(base, identity, marker=marker, read_only=True)
    host.kernel.loop_attach(base, identity, marker=base_marker("0" * 16), read_only=True)
    daemon = host.cli.daemon()
    assert [base_marker("0" * 16)] == [loop.marker for loop in host.loops_on(base)]
    assert daemon.terminate() == 0


@pytest.mark.parametrize("how", ["append", "touch"])
def test_a_base_that_changed_while_a_disk_was_paused_is_refused_until_it_is_put_back(
    host: Host, how: str
) -> None:
    base = host.make_ext4()
    device = host.live("sb-1", base)
    with host.mounted(device) as at:
        (at / "note").write_text("kept")
    whole = digest(device)
    host.cli("pause", "sb-1", "--wait")
    [cow] = (host.root / "cow").iterdir()
    kept, was = digest(cow), base.stat()
    changed = change(base, how)

    answer = host.cli("restore", "sb-1", "--wait", expect=4)
    for stat in (was, changed):
        assert f"{stat.st_size} bytes, mtime {stat.st_mtime_ns} ns" in answer.err
    host.cli("create", "sb-2", "--base", base, "--wait")  # a new disk takes it as it is now
    host.cli("remove", "sb-2", "--wait")
    host.assert_nothing_in_kernel()
    assert kept == digest(cow)

    os.truncate(base, was.st_size)
    os.utime(base, ns=(was.st_atime_ns, was.st_mtime_ns))
    host.cli("run", "--once")
    assert host.record("sb-1").state == "restored"
    assert whole == digest(device)


def change(base: Path, how: str) -> os.stat_result:
    if how == "append":
        with base.open("ab") as file:
            file.write(bytes(4096))
    else:
        os.utime(base, (1, 1))
    return base.stat()


def _die_before_giving_back() -> None:
    detach = LinuxKernel.loop_detach

    def detach_or_die(self: LinuxKernel, loop: object) -> bool:
        if getattr(loop, "read_only", False):
            die()
        return detach(self, loop)  # type: ignore[arg-type]

    LinuxKernel.loop_detach = detach_or_die  # type: ignore[method-assign]

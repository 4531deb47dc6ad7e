"""A disk's node in a jail, on the real kernel: who can open it, and what it leads to."""

from __future__ import annotations

import multiprocessing
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.host import MIB, Host, tool

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

pytestmark = pytest.mark.kernel

GUEST = 54321
DATA, AT = b"written inside the jail", 4 * MIB


class Jail:
    """A jail's folder on a mount of its own, and its process."""

    def __init__(self, host: Host, mount: Path) -> None:
        self.host = host
        self.mount = mount
        self.root = mount / "root"
        self.root.mkdir(mode=0o700)
        os.chown(self.root, GUEST, GUEST)  # as Firecracker's jailer leaves it
        self.node = self.root / "dev" / "rootfs"

    def apply(self, base: Path, *, expect: int = 0) -> str:
        """Declare a disk with a node in the jail; returns what people read."""
        spec = self.host.folder / "spec.toml"
        spec.write_text(
            f'[[disk]]\nname = "sb-1"\nbase = "{base}"\n[disk.jail]\nroot = "{self.root}"\n'
            f'node = "dev/rootfs"\nuid = {GUEST}\ngid = {GUEST}\n'
        )
        return self.host.cli("apply", "-f", spec, "--wait", expect=expect).err

    def number(self) -> int:
        """Return the device number of the node, which is the jail's alone."""
        found = self.node.lstat()
        assert stat.S_ISBLK(found.st_mode)
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (GUEST, GUEST, 0o600)
        return found.st_rdev

    def write(self) -> None:
        """Write to the disk, from inside."""
        assert self._inside(lambda node: os.pwrite(node, DATA, AT)) == len(DATA)

    def read(self) -> object:
        """Read that, from inside."""
        return self._inside(lambda node: os.pread(node, len(DATA), AT))

    def _inside(self, work: Callable[[int], object]) -> object:
        fork = multiprocessing.get_context("fork")
        ours, its = fork.Pipe()
        process = fork.Process(target=enter, args=(self.root, work, its))
        process.start()
        assert ours.poll(60)
        answer = ours.recv()
        process.join(60)
        assert process.exitcode == 0
        return answer


def enter(root: Path, work: Callable[[int], object], answer: Connection) -> None:
    """Do as a jailer does: change root, give up all rights, then open the disk."""
    os.chroot(root)
    os.chdir("/")
    os.setgroups([])
    os.setresgid(GUEST, GUEST, GUEST)
    os.setresuid(GUEST, GUEST, GUEST)
    node = os.open("/dev/rootfs", os.O_RDWR | os.O_CLOEXEC)
    try:
        answer.send(work(node))
        os.fsync(node)
    finally:
        os.close(node)


@contextmanager
def mounted(host: Host, options: str) -> Iterator[Jail]:
    at = host.folder / "jails"
    at.mkdir()
    tool("mount", "-t", "tmpfs", "-o", f"mode=755,{options}", "jails", at)
    try:
        yield Jail(host, at)
    finally:
        host.umount(at)


def test_a_jails_process_has_its_disk_through_pause_and_restore(host: Host) -> None:
    base = host.make_ext4()
    with mounted(host, "dev") as jail:
        jail.apply(base)
        first = jail.number()
        assert host.device("sb-1").stat().st_rdev == first
        jail.write()
        host.cli("pause", "sb-1", "--wait")
        assert list(jail.root.iterdir()) == []
        # Another disk takes the number that this one had.
        assert host.live("sb-2", base).stat().st_rdev == first
        host.cli("restore", "sb-1", "--wait")
        assert jail.number() == host.device("sb-1").stat().st_rdev != first
        assert jail.read() == DATA
        jail.node.unlink()
        host.cli("run", "--once")
        assert jail.read() == DATA
        assert "detected repair" in host.story("sb-1")
        before = host.last_seq()
        host.cli("run", "--once")
        assert host.story("sb-1", before) == []
        host.cli("remove", "sb-1", "sb-2", "--wait")
        host.assert_nothing_left()
        assert list(jail.root.iterdir()) == []
    host.assert_proved()


def test_a_mount_without_devices_is_named_before_anything_is_made(host: Host) -> None:
    base = host.make_ext4()
    with mounted(host, "nodev") as jail:
        told = jail.apply(base, expect=1)
        assert f"its mount {jail.mount} (tmpfs) is nodev" in told
        host.assert_nothing_left()
        assert list(jail.root.iterdir()) == []
        tool("mount", "-o", "remount,dev", jail.mount)
        host.cli("run", "--once")
        assert host.is_settled("sb-1", "snapshotted")
        assert jail.number() == host.device("sb-1").stat().st_rdev
        host.cli("remove", "sb-1", "--wait")


def test_a_strangers_file_is_refused_and_untouched(host: Host) -> None:
    base = host.make_ext4()
    with mounted(host, "dev") as jail:
        jail.node.parent.mkdir()
        jail.node.write_text("an old copy")
        before = jail.node.stat()
        told = jail.apply(base, expect=4)
        assert f"node {jail.node} is occupied: a file or folder, not made by byre" in told
        assert jail.node.read_text() == "an old copy"
        assert (jail.node.stat().st_ino, jail.node.stat().st_uid) == (before.st_ino, before.st_uid)
        host.assert_nothing_left()
        jail.node.unlink()
        host.cli("run", "--once")
        assert jail.number() == host.device("sb-1").stat().st_rdev
        host.cli("remove", "sb-1", "--wait")
        assert jail.node.parent.is_dir(), "a folder that byre did not make"

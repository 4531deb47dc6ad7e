"""Device nodes in jails on a real file system: the way there, the user's way in, and who bends."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.kernel import nodes
from reconciler.kernel.linux import LinuxKernel
from statemachine.errors import ActionError, ForeignDevice, PermanentError, UnsafePath
from statemachine.jail import Jail
from statemachine.observed import DeviceNumber, LinkKind
from tests.unit.hostile import STRANGER, private

GUEST = 23456
NUMBER, LATER = DeviceNumber(253, 300), DeviceNumber(253, 301)
kernel = LinuxKernel()
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mknod and chown need root")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A jail's folder that its user can search."""
    yield (made := private(tmp_path / "root"))
    made.chmod(0o700)


def jail_in(root: Path, node: str = "rootfs", uid: int = GUEST) -> Jail:
    return Jail(root=root, node=Path(node), uid=uid, gid=GUEST)


def test_the_mount_of_a_descriptor_has_its_place_and_type() -> None:
    folder = os.open("/proc/self", os.O_PATH)
    try:
        assert nodes.mount_of(folder) == "/proc (proc)"
    finally:
        os.close(folder)


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "expected"),
    [
        (0o100, 1, 9, True),
        (0o011, 1, 9, False),
        (0o010, 9, 2, True),
        (0o101, 9, 2, False),
        (0o001, 9, 9, True),
        (0o110, 9, 9, False),
        (0o000, 0, 0, True),
    ],
)
def test_who_may_search_a_folder(mode: int, uid: int, gid: int, *, expected: bool) -> None:
    folder = os.stat_result((stat.S_IFDIR | mode, 0, 0, 1, 1, 2, 0, 0, 0, 0))
    assert nodes.may_search(folder, uid, gid) is expected


def test_a_folder_that_the_jails_user_may_not_search_is_named(root: Path) -> None:
    (root / "dev").mkdir(mode=0o700)
    root.chmod(0o755)
    seen = kernel.look_at_node(jail_in(root, "dev/rootfs"))
    assert seen.flaw == f"uid {GUEST}, gid {GUEST} may not search the folder {root / 'dev'}"
    (root / "dev").chmod(0o755)
    assert "may not search" not in kernel.look_at_node(jail_in(root, "dev/rootfs")).flaw


@pytest.mark.skipif(os.geteuid() == 0, reason="root may make nodes")
def test_without_the_privilege_the_mount_is_named(root: Path) -> None:
    root.chmod(0o755)
    seen = kernel.look_at_node(jail_in(root))
    assert "this process may make no device node on its mount /" in seen.flaw
    with pytest.raises(PermanentError, match=r"can be made on the mount /.* \(.*\): ") as caught:
        kernel.put_node(jail_in(root), NUMBER, replaces=None)
    assert caught.value.kind == "no-node"


def test_a_folder_that_others_write_to_is_refused(root: Path) -> None:
    root.chmod(0o777)
    seen = kernel.look_at_node(jail_in(root))
    assert seen.kind is LinkKind.OCCUPIED
    assert "another user can replace what byre keeps there" in seen.unsafe
    with pytest.raises(UnsafePath):
        kernel.put_node(jail_in(root), NUMBER, replaces=None)
    assert list(root.iterdir()) == []


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(
    ("owner", "mode", "is_safe"),
    [(GUEST, 0o755, True), (GUEST, 0o757, False), (GUEST, 0o775, False), (STRANGER, 0o755, False)],
)
def test_a_folder_may_be_the_jails_users_own_and_nobody_elses(
    root: Path, owner: int, mode: int, *, is_safe: bool
) -> None:
    os.chown(root, owner, owner)
    root.chmod(mode)
    assert bool(kernel.look_at_node(jail_in(root)).unsafe) is not is_safe


@pytest.mark.root
@needs_root
def test_the_umask_narrows_no_node(root: Path) -> None:
    before = os.umask(0o777)
    try:
        kernel.put_node(jail_in(root), NUMBER, replaces=None)
    finally:
        os.umask(before)
    found = (root / "rootfs").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (GUEST, GUEST, 0o600)


@pytest.mark.root
@needs_root
def test_what_a_crash_left_beside_is_cleared(root: Path) -> None:
    left = root / ".rootfs.byre-new"
    os.mknod(left, stat.S_IFBLK | 0o600, os.makedev(253, 1))
    kernel.put_node(jail_in(root), NUMBER, replaces=None)
    assert [each.name for each in root.iterdir()] == ["rootfs"]


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFBLK])
def test_what_takes_the_new_nodes_name_is_not_given_away(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int, *, is_there: bool
) -> None:
    victim = tmp_path / "shadow"
    os.mknod(victim, kind | 0o640, os.makedev(LATER.major, LATER.minor))
    if is_there:
        kernel.put_node(jail_in(root), NUMBER, replaces=None)
    mknod = os.mknod

    def swapped(path: str, mode: int, device: int, *, dir_fd: int) -> None:
        mknod(path, mode, device, dir_fd=dir_fd)
        os.unlink(path, dir_fd=dir_fd)
        os.link(victim, path, dst_dir_fd=dir_fd)

    monkeypatch.setattr(os, "mknod", swapped)
    with pytest.raises(UnsafePath, match="was replaced while it was made"):
        kernel.put_node(jail_in(root), LATER, replaces=NUMBER)
    found = victim.stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.geteuid(), 0o640)
    assert kernel.look_at_node(jail_in(root)).number == (str(NUMBER) if is_there else "")


@pytest.mark.root
@needs_root
def test_a_node_swapped_just_before_the_exchange_comes_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jail = jail_in(root)
    kernel.put_node(jail, NUMBER, replaces=None)
    mknod = os.mknod

    def swapped(path: str, mode: int, device: int, *, dir_fd: int) -> None:
        mknod(path, mode, device, dir_fd=dir_fd)
        jail.path.unlink()
        jail.path.write_text("somebody's")

    monkeypatch.setattr(os, "mknod", swapped)
    with pytest.raises(ForeignDevice, match="a file or folder"):
        kernel.put_node(jail, LATER, replaces=NUMBER)
    assert jail.path.read_text() == "somebody's"
    assert [each.name for each in root.iterdir()] == ["rootfs"]


@pytest.mark.root
@needs_root
def test_a_name_that_is_taken_beside_is_an_error_and_stays(root: Path) -> None:
    (root / ".rootfs.byre-new").touch()
    with pytest.raises(ActionError):
        kernel.put_node(jail_in(root), NUMBER, replaces=None)
    assert [each.name for each in root.iterdir()] == [".rootfs.byre-new"]

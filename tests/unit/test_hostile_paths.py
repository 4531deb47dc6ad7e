"""A path that another user can bend leads nowhere; one that only the administrator bent, does."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.kernel import safepath
from reconciler.kernel.linux import LinuxKernel
from statemachine.errors import (
    ActionError,
    ForeignDevice,
    PermanentError,
    UnsafePath,
)
from statemachine.observed import DeviceNumber, LinkKind, LinkObservation
from statemachine.units import Bytes
from tests.unit.hostile import STRANGER, folder_of, found, private, share, swapping

kernel = LinuxKernel()
ME = os.geteuid()
SIZE = Bytes(4096)
SYMLINK = stat.S_IFLNK | 0o777
FOLDER = stat.S_IFDIR | 0o755


# --- the rule ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "kept", "held"),
    [
        (folder_of(ME), True, True),
        (folder_of(0), True, True),
        (folder_of(ME, 0o775), False, False),
        (folder_of(ME, 0o757), False, False),
        (folder_of(0, 0o1777), False, True),
        (folder_of(ME, 0o1775), False, True),
        (folder_of(STRANGER), False, False),
        (folder_of(STRANGER, 0o1755), False, False),
    ],
)
def test_who_can_put_and_who_can_take_away_names(
    folder: os.stat_result, *, kept: bool, held: bool
) -> None:
    assert (safepath.keeps(folder), safepath.holds(folder)) == (kept, held)


@pytest.mark.parametrize("shared", [(STRANGER, 0o755), (0, 0o1777), (ME, 0o777), (ME, 0o775)])
def test_in_a_shared_folder_no_symlink_is_followed_whoever_made_it(shared: tuple[int, int]) -> None:
    for uid in (0, ME, STRANGER):
        assert "symlink" in safepath.objection(folder_of(*shared), found(uid=uid, mode=SYMLINK))


@pytest.mark.parametrize(
    ("parent", "owner", "word"),
    [
        ((0, 0o1777), ME, ""),
        ((0, 0o1777), 0, ""),
        ((0, 0o1777), STRANGER, f"uid {STRANGER}"),
        ((ME, 0o777), STRANGER, f"uid {STRANGER}"),
        ((STRANGER, 0o755), STRANGER, ""),
        ((STRANGER, 0o777), STRANGER + 1, f"uid {STRANGER + 1}"),
        ((0, 0o755), STRANGER, ""),
    ],
)
def test_a_folder_is_entered_if_its_owner_was_chosen(
    parent: tuple[int, int], owner: int, word: str
) -> None:
    why = safepath.objection(folder_of(*parent), found(uid=owner, mode=FOLDER))
    assert bool(why) == bool(word)
    assert word in why


@pytest.mark.parametrize(
    ("name", "members", "own"),
    [("me", [], True), ("me", ["me"], True), ("me", ["me", "eve"], False), ("users", [], False)],
)
def test_a_users_own_group_is_nobody_else(
    monkeypatch: pytest.MonkeyPatch, name: str, members: list[str], *, own: bool
) -> None:
    user = pwd.struct_passwd(("me", "x", ME, 7, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: user)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((name, "x", gid, members)))
    assert safepath.keeps(folder_of(ME, 0o775, gid=7)) is own


def test_the_remedy_is_the_command_to_run() -> None:
    path = Path("/srv/a b")
    assert safepath.remedy(path, folder_of(ME, 0o777)) == "chmod go-w '/srv/a b'"
    both = f"chown {ME} /srv/x && chmod go-w /srv/x"
    assert safepath.remedy(Path("/srv/x"), folder_of(STRANGER, 0o777)) == both


# --- planted symlinks ----------------------------------------------------------------------------


def planted(tmp_path: Path) -> tuple[Path, Path]:
    """Plant a symlink to a victim's folder in a shared one; return the way through, the victim."""
    victim = private(tmp_path / "victim")
    shared = share(tmp_path / "shared")
    (shared / "run").symlink_to(victim)
    return shared / "run" / "x", victim


def link(path: Path) -> None:
    kernel.put_link(path, "new", replaces=None)


def replace(path: Path) -> None:
    kernel.put_link(path, "new", replaces="old")


def node(path: Path) -> None:
    kernel.ensure_node(DeviceNumber(253, 0), path)


def sparse(path: Path) -> None:
    kernel.create_sparse(path, SIZE)


def below(path: Path) -> None:
    kernel.create_sparse(path / "deeper" / "file", SIZE)


def clone(path: Path) -> None:
    base = path.parent.parent.parent / "base"
    base.write_bytes(b"base")
    kernel.clone_file(base, path, SIZE)


@pytest.mark.parametrize("make", [link, replace, node, sparse, below, clone, kernel.make_folder])
def test_nothing_is_made_through_a_planted_symlink(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    path, victim = planted(tmp_path)
    with pytest.raises(UnsafePath, match=f"{tmp_path}/shared") as caught:
        make(path)
    assert (caught.value.exit_code, caught.value.kind) == (4, "unsafe-path")
    assert list(victim.iterdir()) == []


def test_nothing_is_removed_through_a_planted_symlink(tmp_path: Path) -> None:
    path, victim = planted(tmp_path)
    (victim / "x").symlink_to("old")
    (victim / "folder").mkdir()
    (victim / "file").touch()
    file = kernel.identify(victim / "file")
    assert file is not None
    with pytest.raises(UnsafePath):
        kernel.drop_link(path, "old")
    with pytest.raises(UnsafePath):
        replace(path)
    with pytest.raises(UnsafePath):
        kernel.remove_folder(path.with_name("folder"))
    with pytest.raises(UnsafePath):
        kernel.remove_file(path.with_name("file"), file)
    assert sorted(each.name for each in victim.iterdir()) == ["file", "folder", "x"]
    assert os.readlink(victim / "x") == "old"  # noqa: PTH115 - the literal text


def test_what_is_seen_through_a_planted_symlink_is_not_ours_and_says_why(tmp_path: Path) -> None:
    path, victim = planted(tmp_path)
    (victim / "x").symlink_to("old")
    seen = kernel.read_link(path)
    assert (seen.kind, seen.target) == (LinkKind.OCCUPIED, "")
    assert "is a symlink in a folder that another user can write to" in seen.why


def test_the_planted_symlink_itself_is_somebody_elses(tmp_path: Path) -> None:
    path, _ = planted(tmp_path)
    with pytest.raises(ForeignDevice):
        link(path.parent)
    with pytest.raises(UnsafePath):
        kernel.make_folder(path.parent)
    with pytest.raises(PermanentError) as caught:
        kernel.remove_folder(path.parent)
    assert caught.value.kind == "enotdir"


def test_a_link_in_a_shared_folder_itself_is_made_and_removed(tmp_path: Path) -> None:
    shared = share(tmp_path / "shared")
    path = shared / "run" / "link"
    assert kernel.make_folder(path.parent) is True
    assert kernel.put_link(path, "old", replaces=None) is True
    assert kernel.put_link(path, "new", replaces="old") is True
    assert kernel.read_link(path) == LinkObservation(kind=LinkKind.SYMLINK, target="new")
    assert kernel.drop_link(path, "new") is True
    assert kernel.remove_folder(path.parent) is True


def test_byres_own_files_are_not_made_where_another_user_can_swap_them(tmp_path: Path) -> None:
    shared = share(tmp_path / "shared")
    for make in (sparse, below):
        with pytest.raises(UnsafePath, match="replace what byre keeps there") as caught:
            make(shared / "x")
        assert str(shared) in caught.value.hint
    assert list(shared.iterdir()) == []


def test_in_a_sticky_folder_what_is_ours_is_safe(tmp_path: Path) -> None:
    sticky = private(tmp_path / "sticky")
    sticky.chmod(0o1777)
    sparse(sticky / "mine" / "file")
    link(sticky / "mine" / "link")
    (sticky / "way").symlink_to("mine")
    with pytest.raises(UnsafePath):
        link(sticky / "way" / "other")


# --- the administrator's symlinks ----------------------------------------------------------------


@pytest.mark.parametrize("text", ["{0}/data/srv", "data/srv", "./data/../data//srv/", "again"])
def test_a_symlink_that_only_we_can_have_made_is_followed(tmp_path: Path, text: str) -> None:
    private(tmp_path / "data")
    private(tmp_path / "data" / "srv")
    (tmp_path / "again").symlink_to("data/srv")
    (tmp_path / "srv").symlink_to(text.format(tmp_path))
    for make in (link, sparse):
        make(tmp_path / "srv" / make.__name__)
    assert kernel.list_folder(tmp_path / "data" / "srv") == ("link", "sparse")
    assert kernel.make_folder(tmp_path / "srv") is False


def test_a_symlink_out_of_a_private_folder_does_not_make_its_end_private(tmp_path: Path) -> None:
    shared = share(tmp_path / "shared")
    (tmp_path / "root").mkdir(mode=0o700)
    (tmp_path / "root" / "cow").symlink_to(shared)
    with pytest.raises(UnsafePath):
        sparse(tmp_path / "root" / "cow" / "1.cow")
    assert list(shared.iterdir()) == []


def test_symlinks_in_a_circle_have_an_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(PermanentError) as caught:
        link(tmp_path / "a" / "link")
    assert caught.value.kind == "eloop"


def test_a_dangling_symlink_on_the_way_is_no_way(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("nowhere")
    with pytest.raises(PermanentError) as caught:
        link(tmp_path / "a" / "link")
    assert caught.value.kind == "enoent"


def test_no_descriptor_is_left_open_by_a_walk_however_it_ends(tmp_path: Path) -> None:
    path, _ = planted(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
    for way in (path, tmp_path / "loop" / "x", tmp_path / "file" / "x", tmp_path / "no" / "x"):
        with pytest.raises((ActionError, ForeignDevice, UnsafePath)):
            link(way)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


# --- swapped between looking and doing -----------------------------------------------------------


def test_a_folder_swapped_after_the_walk_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, shared = private(tmp_path / "victim"), share(tmp_path / "shared")
    kernel.make_folder(shared / "run")
    real = os.symlink

    def swapped(text: str, name: str, *, dir_fd: int) -> None:
        (shared / "run").rename(shared / "aside")
        real(victim, shared / "run")
        real(text, name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "symlink", swapped)
    link(shared / "run" / "x")
    assert (list(victim.iterdir()), kernel.list_folder(shared / "aside")) == ([], ("x",))


def test_whoever_swaps_all_the_time_gets_nothing_into_another_folder(tmp_path: Path) -> None:
    victim, shared = private(tmp_path / "victim"), share(tmp_path / "shared")
    kernel.make_folder(shared / "run")
    (shared / "trap").symlink_to(victim)
    with swapping(shared, "run", "trap"):
        for number in range(300):
            for make in (link, kernel.make_folder):
                try:
                    make(shared / "run" / f"{number}-{make.__name__}")
                except (UnsafePath, ActionError):
                    continue
    assert list(victim.iterdir()) == []


def test_a_new_folder_that_is_swapped_does_not_open_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, shared = private(tmp_path / "victim"), share(tmp_path / "shared")
    (victim / "secret").touch()
    real = os.mkdir

    def narrow_then_swapped(name: str, mode: int, *, dir_fd: int) -> None:
        real(name, mode & 0o700, dir_fd=dir_fd)
        (shared / name).rename(shared / "aside")
        (shared / name).symlink_to(victim)

    monkeypatch.setattr(os, "mkdir", narrow_then_swapped)
    with pytest.raises(PermanentError):
        kernel.make_folder(shared / "run")

    def narrow_then_moved(name: str, mode: int, *, dir_fd: int) -> None:
        real(name, mode & 0o700, dir_fd=dir_fd)
        (shared / name).rename(shared / "aside-2")
        victim.rename(shared / name)

    monkeypatch.setattr(os, "mkdir", narrow_then_moved)
    with pytest.raises(UnsafePath, match="replaced while it was made"):
        kernel.make_folder(shared / "other")
    assert (shared / "other").stat().st_mode & 0o777 == 0o700


def test_a_new_folder_is_open_to_all_under_a_narrow_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        kernel.make_folder(tmp_path / "jail")
    finally:
        os.umask(before)
    assert (tmp_path / "jail").stat().st_mode & 0o777 == 0o755

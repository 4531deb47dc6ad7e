"""A state root that another user can reach into is refused, with the command that closes it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.api import Byre
from reconciler.kernel.sim import SimKernel
from reconciler.lock import RootLock
from reconciler.requester import this_process
from reconciler.root import Root
from reconciler.stateroot import secure
from statemachine.errors import LogUnavailable, UnsafePath, UsageError
from tests.unit.hostile import private, share

FILES = ["byre.db", "byre.db-wal", "byre.db-shm", "byre.db-journal", "reconciler.lock",
         "config.toml"]  # fmt: skip


def refusal(root: Path) -> UnsafePath:
    with pytest.raises(UnsafePath) as caught:
        secure(Root(root))
    assert caught.value.exit_code == 4
    return caught.value


def test_a_new_root_is_ours_alone_and_so_are_its_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Byre(tmp_path / "a" / "root", kernel=SimKernel()) as byre, byre.lock:
            names = sorted(path.name for path in byre.root.path.iterdir())
            modes = {path.stat().st_mode & 0o777 for path in byre.root.path.iterdir()}
    finally:
        os.umask(before)
    assert {"byre.db", "byre.db-wal", "reconciler.lock"} <= set(names)
    assert modes == {0o600}
    for folder in (tmp_path / "a", tmp_path / "a" / "root"):
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o1777])
def test_a_root_that_others_can_write_to_is_refused_until_it_is_closed(
    tmp_path: Path, mode: int
) -> None:
    root = private(tmp_path / "root")
    root.chmod(mode)
    error = refusal(root)
    assert f"chmod go-w {root}" in error.hint
    assert list(root.iterdir()) == []
    root.chmod(0o755)
    secure(Root(root))


def test_a_root_below_a_folder_that_another_user_can_write_to_is_refused(tmp_path: Path) -> None:
    shared = share(tmp_path / "shared")
    assert str(shared) in refusal(shared / "root").message
    private(shared / "root")
    assert str(shared) in refusal(shared / "root").hint
    assert not (shared / "root" / "byre.db").exists()


def test_a_root_in_a_sticky_folder_is_ours_if_we_made_it(tmp_path: Path) -> None:
    sticky = private(tmp_path / "sticky")
    sticky.chmod(0o1777)
    secure(Root(sticky / "root"))
    (sticky / "other").symlink_to("root")
    assert "is a symlink in a folder" in refusal(sticky / "other").message


def test_a_root_behind_the_administrators_symlink_is_used(tmp_path: Path) -> None:
    private(tmp_path / "data")
    (tmp_path / "root").symlink_to("data")
    with Byre(tmp_path / "root", kernel=SimKernel()):
        assert (tmp_path / "data" / "byre.db").is_file()


def symlink(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def dangling(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("missing"))


def hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def pipe(path: Path, _victim: Path) -> None:
    os.mkfifo(path)


def writable(path: Path, _victim: Path) -> None:
    path.touch()
    path.chmod(0o666)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("plant", [symlink, dangling, hard_link, pipe, writable])
def test_a_file_planted_before_the_first_start_is_not_used(
    tmp_path: Path, name: str, plant: Callable[[Path, Path], None]
) -> None:
    root, victim = private(tmp_path / "root"), tmp_path / "victim"
    victim.write_text("precious")
    plant(root / name, victim)
    with pytest.raises(UnsafePath, match=name):
        Byre(root, kernel=SimKernel())
    assert victim.read_text() == "precious"
    assert not (tmp_path / "missing").exists()
    assert [path.name for path in root.iterdir()] == [name]


@pytest.mark.parametrize("plant", [symlink, hard_link])
def test_the_lock_alone_truncates_no_planted_file(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    plant(tmp_path / "reconciler.lock", victim)
    with pytest.raises(LogUnavailable):
        RootLock(tmp_path / "reconciler.lock").acquire()
    assert victim.read_text() == "precious"


def test_who_only_reads_needs_no_private_root(tmp_path: Path) -> None:
    root = private(tmp_path / "root")
    Byre(root, kernel=SimKernel()).close()
    root.chmod(0o777)
    Byre(root, kernel=SimKernel(), read_only=True).close()


def test_a_root_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LogUnavailable, match="Not a directory"):
        secure(Root(tmp_path / "file" / "root"))


# --- the environment -----------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["/srv/a\nb", "/srv/\x1b[2J", "/srv/\0", "/srv/\u202egpj"])
def test_a_root_of_unprintable_text_is_a_usage_error(root: str) -> None:
    with pytest.raises(UsageError, match="printable") as caught:
        Root.from_environment({"BYRE_ROOT": root}, uid=0)
    assert caught.value.exit_code == 2
    assert caught.value.message.isprintable()


def test_a_relative_state_folder_is_ignored_as_its_specification_says() -> None:
    environment = {"XDG_STATE_HOME": "state", "HOME": "/h/a"}
    assert Root.from_environment(environment, uid=1000).path == Path("/h/a/.local/state/byre")


def test_for_root_the_environment_of_a_user_says_nothing() -> None:
    environment = {"XDG_STATE_HOME": "/tmp/eve", "HOME": "/tmp/eve"}
    assert Root.from_environment(environment, uid=0).path == Path("/var/lib/byre")


def test_who_asks_is_not_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    before = this_process().user
    for name in ("USER", "LOGNAME", "SUDO_USER", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    assert this_process().user == before

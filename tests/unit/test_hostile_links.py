"""The actions on a link whose path another user bends: it is refused, and holds up no end."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from reconciler.actions import CheckLink, DropFolder, DropLink, MakeFolder, MakeLink, Scene
from reconciler.bases import BaseLoops
from reconciler.kernel.linux import LinuxKernel
from statemachine.errors import ForeignDevice, PermanentError, RefusedError, UnsafePath
from tests.unit.hostile import private, share


def scene_of(kernel: LinuxKernel, *roots: Path) -> Scene:
    bases = BaseLoops(kernel, "0" * 16)
    return Scene(kernel=kernel, bases=bases, disk="sb-1", same_boot=True, link_roots=roots)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder in a sandbox's jail, swapped for a symlink to a victim's."""
    victim, jail = private(tmp_path / "victim"), share(tmp_path / "jail")
    (victim / "link").symlink_to("ours")
    (jail / "run").symlink_to(victim)
    return jail / "run"


def test_a_link_is_not_made_and_the_refusal_says_why(run: Path) -> None:
    scene = scene_of(LinuxKernel())
    for action in (CheckLink(run / "link", ("ours",)), MakeLink(run / "link", "new", ("ours",))):
        with pytest.raises(UnsafePath, match="run is a symlink in a folder that") as caught:
            action.do(scene)
        assert caught.value.hint
    with pytest.raises(UnsafePath):
        MakeFolder(run / "deeper").do(scene)


def test_what_is_behind_a_planted_symlink_is_not_removed_and_holds_nothing_up(
    tmp_path: Path, run: Path
) -> None:
    (tmp_path / "victim" / "empty").mkdir()
    scene = scene_of(LinuxKernel())
    for action in (DropLink(run / "link", "ours"), DropFolder(run / "empty"), DropFolder(run)):
        assert action.do(scene) is False
    left = sorted(each.name for each in (tmp_path / "victim").iterdir())
    assert left == ["empty", "link"]


@pytest.mark.parametrize("error", [UnsafePath("bent"), ForeignDevice("replaced")])
def test_a_link_swapped_just_before_it_is_dropped_stays(
    tmp_path: Path, error: RefusedError
) -> None:
    class Swapped(LinuxKernel):
        def drop_link(self, path: Path, target: str) -> bool:
            del path, target
            raise error

    (tmp_path / "link").symlink_to("ours")
    assert DropLink(tmp_path / "link", "ours").do(scene_of(Swapped())) is False


def test_a_folder_that_cannot_be_removed_for_another_reason_is_told(tmp_path: Path) -> None:
    class Failing(LinuxKernel):
        def remove_folder(self, path: Path) -> bool:
            raise PermanentError(f"remove {path}", errno=errno.EIO)

    with pytest.raises(PermanentError):
        DropFolder(tmp_path / "x").do(scene_of(Failing()))
    (tmp_path / "file").touch()
    assert DropFolder(tmp_path / "file").do(scene_of(LinuxKernel())) is False


def test_a_link_is_made_below_the_roots_only(tmp_path: Path) -> None:
    for name in ("vm", "etc"):
        private(tmp_path / name)
    (tmp_path / "vm" / "out").symlink_to("../etc")
    scene = scene_of(LinuxKernel(), tmp_path / "vm")
    for path in (tmp_path / "etc" / "link", tmp_path / "vm" / "out" / "link"):
        for action in (CheckLink(path, ()), MakeLink(path, "new", ())):
            with pytest.raises(RefusedError, match="outside of the link roots"):
                action.do(scene)
    with pytest.raises(RefusedError, match="outside of the link roots"):
        MakeFolder(tmp_path / "vm" / "out" / "deeper").do(scene)
    assert list((tmp_path / "etc").iterdir()) == []
    assert MakeLink(tmp_path / "vm" / "link", "new", ()).do(scene) is True

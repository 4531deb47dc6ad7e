"""Actions that act before they look, as mostly nothing is in the way: what they do when it is."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from reconciler.actions import CheckBase, CheckCow, MakeCow, MakeLink, MakeNode, Scene
from reconciler.bases import BaseLoops
from reconciler.kernel.linux import LinuxKernel
from reconciler.kernel.port import CowHeader
from statemachine.errors import ForeignDevice, IdentityMismatch, PermanentError, TransientError
from statemachine.fileidentity import FileIdentity
from statemachine.observed import DeviceNumber
from statemachine.units import Bytes

SIZE, CHUNK = Bytes(1 << 20), Bytes(4096)
DEVICE = DeviceNumber(253, 4)


class Udevless(LinuxKernel):
    """A kernel whose /dev/dm-4 is there already."""

    def ensure_node(self, device: DeviceNumber, path: Path) -> bool:
        assert (device, path) == (DEVICE, Path("/dev/dm-4"))
        return False


class Swift(LinuxKernel):
    """A kernel where a file is there, and gone at the next look."""

    def create_sparse(self, path: Path, size: Bytes) -> FileIdentity:
        del size
        raise PermanentError(f"create the file {path}: File exists", errno=errno.EEXIST)


def scene_of(kernel: LinuxKernel) -> Scene:
    return Scene(kernel=kernel, bases=BaseLoops(kernel, "0" * 16), disk="sb-1", same_boot=True)


def node_scene() -> Scene:
    scene = scene_of(Udevless())
    scene.device = DEVICE
    return scene


def test_a_link_that_was_free_is_made_in_one_step(tmp_path: Path) -> None:
    scene = scene_of(LinuxKernel())
    assert MakeLink(tmp_path / "link", "new", (), is_free=True).do(scene) is True
    assert (scene.link_before, scene.link_target) == ("", "new")
    assert MakeLink(tmp_path / "link", "new", (), is_free=True).do(scene) is False


def test_our_own_link_that_came_meanwhile_is_replaced_and_a_strangers_is_not(
    tmp_path: Path,
) -> None:
    scene = scene_of(LinuxKernel())
    (tmp_path / "ours").symlink_to("old")
    assert MakeLink(tmp_path / "ours", "new", ("old",), is_free=True).do(scene) is True
    assert (scene.link_before, str((tmp_path / "ours").readlink())) == ("old", "new")
    (tmp_path / "theirs").symlink_to("elsewhere")
    with pytest.raises(ForeignDevice, match="occupied: a symlink to elsewhere"):
        MakeLink(tmp_path / "theirs", "new", ("old",), is_free=True).do(scene)
    assert str((tmp_path / "theirs").readlink()) == "elsewhere"


def test_a_stale_name_in_dev_mapper_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "stale").symlink_to("../dm-9")
    assert MakeNode(tmp_path / "stale").do(node_scene()) is True
    assert str((tmp_path / "stale").readlink()) == "../dm-4"
    assert MakeNode(tmp_path / "stale").do(node_scene()) is False
    (tmp_path / "file").touch()
    with pytest.raises(ForeignDevice, match="a file or folder"):
        MakeNode(tmp_path / "file").do(node_scene())


def test_an_empty_cow_file_that_is_there_is_taken_and_another_refused(tmp_path: Path) -> None:
    made, action = tmp_path / "x.cow", MakeCow(tmp_path / "x.cow", SIZE, CHUNK)
    scene = scene_of(LinuxKernel())
    assert action.do(scene) is True
    assert scene.cow_is_new
    scene = scene_of(LinuxKernel())
    assert action.do(scene) is False
    assert (scene.cow, scene.cow_is_new) == (scene.kernel.identify(made), False)
    made.write_bytes(b"x" * SIZE.count)
    with pytest.raises(IdentityMismatch, match="is not an empty CoW file of ours"):
        action.do(scene_of(LinuxKernel()))


def test_a_file_that_goes_while_it_is_looked_at_is_a_matter_of_trying_again(
    tmp_path: Path,
) -> None:
    with pytest.raises(TransientError, match="went just now"):
        MakeCow(tmp_path / "x.cow", SIZE, CHUNK).do(scene_of(Swift()))


def test_what_the_pass_has_checked_is_not_checked_again_when_it_goes_on(tmp_path: Path) -> None:
    before, scene = scene_of(LinuxKernel()), scene_of(LinuxKernel())
    (tmp_path / "base").write_bytes(b"base")
    base = before.kernel.identify(tmp_path / "base")
    assert base is not None
    CheckBase(tmp_path / "base", base).do(before)
    MakeCow(tmp_path / "x.cow", SIZE, CHUNK).do(before)
    scene.goes_on_from(before)
    assert (scene.base, scene.cow) == (base, before.cow)
    (tmp_path / "base").unlink()
    (tmp_path / "x.cow").unlink()
    assert before.cow is not None
    again = CheckCow(tmp_path / "x.cow", before.cow, True, CHUNK, (CowHeader.EMPTY,))  # noqa: FBT003
    assert [CheckBase(tmp_path / "base", base).do(scene), again.do(scene)] == [False, False]
    with pytest.raises(PermanentError, match="is missing"):
        again.do(scene_of(LinuxKernel()))

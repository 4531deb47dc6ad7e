"""Actions on names: the device's node, the disk's link, and the folders made for it.

A link is a symlink at the path that the spec names; whatever else stands there is somebody's and
is refused, and so is a way there that another user can bend. See the package for the other rules.
May be imported by the package's own `__init__` only.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import attrs

from reconciler import linkroots
from reconciler.actions.dm import refuse_foreign
from reconciler.actions.going import tried_again_without_folder
from reconciler.actions.scene import Scene
from statemachine.errors import (
    ActionError,
    ForeignDevice,
    PermanentError,
    RefusedError,
    UnsafePath,
)
from statemachine.observed import DmDevice, LinkKind, LinkObservation

_STRANGER_HINT = "move it away, or choose another link; byre never overwrites it"
_BENT_HINT = "take it away, or choose a link in a folder that only byre's user can write to"


@attrs.frozen
class CheckName:
    """Refuse a disk whose device's name is taken, before anything is made for it."""

    name: str
    uuid: str
    found: DmDevice | None
    """The device of this name, as the pass saw it; `MakeDm` refuses one that comes meanwhile."""

    def do(self, _scene: Scene) -> bool:
        """Say whose the name is; changes nothing."""
        if self.found is not None:
            refuse_foreign(self.found, self.uuid)
        return False

    def undo(self, scene: Scene) -> None:
        """Nothing was changed."""

    def __str__(self) -> str:
        return f"check that the name {self.name} is free"


@attrs.frozen
class CheckLink:
    """Refuse a disk whose link's place is taken, before anything is made for it."""

    path: Path
    ours: tuple[str, ...]
    """Texts that a symlink of ours may have here."""

    def do(self, scene: Scene) -> bool:
        """Look what is there; changes nothing."""
        linkroots.refuse_outside(scene.kernel, self.path, scene.link_roots)
        _refuse_occupied(self.path, scene.kernel.read_link(self.path), self.ours)
        return False

    def undo(self, scene: Scene) -> None:
        """Nothing was changed."""

    def __str__(self) -> str:
        return f"check that link {self.path} is free"


@attrs.frozen
class MakeNode:
    """Have /dev/dm-N and /dev/mapper/NAME, whether udev makes them or not."""

    path: Path

    def do(self, scene: Scene) -> bool:
        """Make what is missing; udev may make the same symlink at the same moment."""
        assert scene.device is not None, "the dm device comes first"
        node = Path(f"/dev/dm-{scene.device.minor}")
        changed = scene.kernel.ensure_node(scene.device, node)
        scene.device_path = str(self.path)
        try:  # mostly nothing is there, or the very symlink
            return scene.kernel.put_link(self.path, f"../{node.name}", replaces=None) or changed
        except ForeignDevice:
            found = scene.kernel.read_link(self.path)
        if found.kind is LinkKind.DEVICE and found.target == str(scene.device):
            return changed
        # The name belongs to our device: a symlink left by an earlier owner of it is stale.
        stale = found.target if found.kind is LinkKind.SYMLINK else None
        return scene.kernel.put_link(self.path, f"../{node.name}", replaces=stale) or changed

    def undo(self, scene: Scene) -> None:
        """Remove the symlink while the device is still there; the kernel removes the node."""
        assert scene.device is not None, "it was made for this device"
        ours = f"../dm-{scene.device.minor}"
        found = scene.kernel.read_link(self.path)
        if found.kind is LinkKind.SYMLINK and found.target == ours:
            scene.kernel.drop_link(self.path, ours)

    def __str__(self) -> str:
        return f"make {self.path}"


@attrs.frozen
class DropNode:
    """Have no /dev/mapper/NAME once its device is gone."""

    path: Path

    def do(self, scene: Scene) -> bool:
        """Remove the symlink if it leads to a dm node; udev may have been quicker."""
        found = scene.kernel.read_link(self.path)
        if found.kind is not LinkKind.SYMLINK or not found.target.startswith("../dm-"):
            return False
        if scene.kernel.dm(self.path.name) is not None:
            return False  # somebody else's device has the name now
        return scene.kernel.drop_link(self.path, found.target)

    def undo(self, scene: Scene) -> None:
        """Made again together with the device."""

    def __str__(self) -> str:
        return f"remove {self.path}"


@attrs.frozen
class MakeFolder:
    """Have one parent folder of a link."""

    path: Path

    def do(self, scene: Scene) -> bool:
        """Make it if it is missing."""
        linkroots.refuse_folder_outside(scene.kernel, self.path, scene.link_roots)
        with tried_again_without_folder():
            return scene.kernel.make_folder(self.path)

    def undo(self, scene: Scene) -> None:
        """Remove it if it is still empty."""
        scene.kernel.remove_folder(self.path)

    def __str__(self) -> str:
        return f"make folder {self.path}"


@attrs.frozen
class DropFolder:
    """Remove a folder that byre made, if it is empty."""

    path: Path

    def do(self, scene: Scene) -> bool:
        """Remove it; with anything in it, or something else in its place, it stays.

        A sandbox that swaps the folder in its jail must not be able to hold up its own end.
        """
        try:
            return scene.kernel.remove_folder(self.path)
        except UnsafePath:
            return False
        except PermanentError as error:
            if error.errno != errno.ENOTDIR:
                raise
            return False

    def undo(self, scene: Scene) -> None:
        """Made again together with the link."""

    def __str__(self) -> str:
        return f"remove folder {self.path} if it is empty"


@attrs.frozen
class MakeLink:
    """Have the symlink that leads to the device for as long as the disk is live."""

    path: Path
    target: str
    """The text of the symlink; "" for the loop device that an earlier action attached."""
    ours: tuple[str, ...]
    """Texts that a symlink of ours may have here, and that may be replaced."""
    taken: str = ""
    """Where it leads that is taken over from another disk, and leads again after an undo."""
    is_free: bool = attrs.field(default=False, kw_only=True)
    """Whether the pass saw nothing there: then the first look is at what is in the way."""

    def do(self, scene: Scene) -> bool:
        """Make or retarget it, atomically; refuse whatever is not ours."""
        linkroots.refuse_outside(scene.kernel, self.path, scene.link_roots)
        target = self._target(scene)
        if self.is_free:
            with contextlib.suppress(ForeignDevice):
                return self._put(scene, target, None)
        found = scene.kernel.read_link(self.path)
        _refuse_occupied(self.path, found, (*self.ours, target))
        before = found.target if found.kind is LinkKind.SYMLINK else None
        return self._put(scene, target, before)

    def _put(self, scene: Scene, target: str, before: str | None) -> bool:
        scene.link_before = before or ""
        try:
            with tried_again_without_folder():
                changed = scene.kernel.put_link(self.path, target, replaces=before)
        except ActionError:
            with contextlib.suppress(ActionError, RefusedError):
                self._take_back(scene, target, before)
            raise
        scene.link_target = target
        return changed

    def _take_back(self, scene: Scene, target: str, before: str | None) -> None:
        """Leave nothing of a call that failed and may have been done all the same."""
        if before is None:
            scene.kernel.drop_link(self.path, target)
        elif before != target:
            scene.kernel.put_link(self.path, before, replaces=target)

    def _target(self, scene: Scene) -> str:
        if self.target:
            return self.target
        assert scene.cow_loop is not None, "AttachCow comes first"
        return scene.cow_loop.path

    def undo(self, scene: Scene) -> None:
        """Remove it; one that was taken over leads back, if there is still something there."""
        was_taken = bool(self.taken) and scene.link_before == self.taken
        if was_taken and scene.kernel.identify(Path(self.taken), follow=True) is not None:
            scene.kernel.put_link(self.path, self.taken, replaces=self._target(scene))
        else:
            scene.kernel.drop_link(self.path, self._target(scene))

    def __str__(self) -> str:
        return f"link {self.path} to {self.target or 'the loop device'}"


@attrs.frozen
class DropLink:
    """Have no link of ours at the path."""

    path: Path
    target: str

    def do(self, scene: Scene) -> bool:
        """Remove it if it is still ours; somebody else's stays."""
        found = scene.kernel.read_link(self.path)
        if found.kind is not LinkKind.SYMLINK or found.target != self.target:
            return False
        try:
            return scene.kernel.drop_link(self.path, self.target)
        except RefusedError:  # it, or the way to it, was swapped just now: not ours any more
            return False

    def undo(self, scene: Scene) -> None:
        """Put it back, so that a device that could not be removed keeps its link."""
        scene.kernel.put_link(self.path, self.target, replaces=None)

    def __str__(self) -> str:
        return f"remove link {self.path}"


def _refuse_occupied(path: Path, found: LinkObservation, ours: tuple[str, ...]) -> None:
    """Raise ForeignDevice unless a link's place is free or holds a symlink of ours.

    Raises:
        UnsafePath: the way there is not to be passed.
    """
    if found.why:
        raise UnsafePath(f"link {found.why}", hint=_BENT_HINT)
    if found.kind is LinkKind.MISSING or (found.kind is LinkKind.SYMLINK and found.target in ours):
        return
    what = f"a symlink to {found.target}" if found.target else "not a symlink"
    msg = f"link {path} is occupied: {what}, not made by byre"
    raise ForeignDevice(msg, hint=_STRANGER_HINT)

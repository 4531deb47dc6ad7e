"""Actions on the device node in a disk's jail: look whether one can be, make it, remove it.

A node that byre made is replaced and removed; whatever else stands there is somebody's and is
refused. See the package for the other rules. May be imported by the drivers' `jailing` only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs

from reconciler import linkroots
from reconciler.actions.going import tried_again_without_folder
from reconciler.actions.scene import Scene
from statemachine.errors import ForeignDevice, PermanentError, RefusedError, UnsafePath
from statemachine.jail import Jail
from statemachine.observed import DeviceNumber, LinkKind, NodeObservation

NO_NODE: Final = "no-node"
"""The kind of failure where no device node can be."""
_STRANGER_HINT: Final = "move it away, or choose another node; byre never overwrites it"
_BENT_HINT: Final = "let only root, byre's user and the jail's own uid write to the folders there"
_FLAW_HINT: Final = "keep the jail where root can make device nodes and its user can open them"
_NO_DEVICE: Final = "this disk is offered as a plain file, which has no device number"


@attrs.frozen
class Ours:
    """Which nodes, in one place, are ones that byre made."""

    numbers: tuple[str, ...] = ()
    any_number: bool = False
    """Whether an attempt that did not end well may have made one whose number nobody noted."""

    def __contains__(self, number: str) -> bool:
        """Tell whether a node of this number is."""
        return self.any_number or number in self.numbers


@attrs.frozen
class CheckJail:
    """Refuse a disk whose jail can have no node, before anything is made for it."""

    jail: Jail
    ours: Ours
    has_device: bool
    """Whether the disk will have a device at all."""

    def do(self, scene: Scene) -> bool:
        """Look what is there; changes nothing."""
        found = scene.kernel.look_at_node(self.jail)
        if not self.has_device:
            msg = f"node {self.jail.path} cannot be: {_NO_DEVICE}"
            raise PermanentError(msg, kind=NO_NODE, hint="give byre loop devices (root)")
        _refuse(scene, self.jail, found, self.ours)
        return False

    def undo(self, scene: Scene) -> None:
        """Nothing was changed."""

    def __str__(self) -> str:
        return f"check that node {self.jail.path} can be made"


@attrs.frozen
class MakeJailNode:
    """Have the node of the disk's device, for the jail's user alone."""

    jail: Jail
    ours: Ours

    def do(self, scene: Scene) -> bool:
        """Make it, or put the right one in the place of an older one of ours, atomically."""
        device, kernel = _device(scene), scene.kernel
        found = kernel.look_at_node(self.jail)
        ours = attrs.evolve(self.ours, numbers=(*self.ours.numbers, str(device)))
        _refuse(scene, self.jail, found, ours)
        before = DeviceNumber.parse(found.number) if found.number else None
        with tried_again_without_folder():
            return kernel.put_node(self.jail, device, replaces=before)

    def undo(self, scene: Scene) -> None:
        """Remove it; one of an earlier life that it replaced leads nowhere and stays gone."""
        scene.kernel.drop_node(self.jail.path, _device(scene))

    def __str__(self) -> str:
        return f"make node {self.jail.path} for uid {self.jail.uid}, gid {self.jail.gid}"


@attrs.frozen
class DropJailNode:
    """Have no node of ours in the place."""

    path: Path
    number: str
    jail: Jail | None
    """The jail that it is of, if that is still the wanted one."""

    def do(self, scene: Scene) -> bool:
        """Remove it if it is still ours; somebody else's stays."""
        try:
            return scene.kernel.drop_node(self.path, DeviceNumber.parse(self.number))
        except RefusedError:  # a jail's user who swaps things must not hold up the disk's end
            return False

    def undo(self, scene: Scene) -> None:
        """Put it back, so that a device that could not be removed keeps its node."""
        if self.jail is not None:
            scene.kernel.put_node(self.jail, DeviceNumber.parse(self.number), replaces=None)

    def __str__(self) -> str:
        return f"remove node {self.path}"


def _device(scene: Scene) -> DeviceNumber:
    assert scene.device is not None, "the device comes first"
    return scene.device


def _refuse(scene: Scene, jail: Jail, found: NodeObservation, ours: Ours) -> None:
    """Raise unless a node can be made in its place, and what is there may be replaced.

    Raises:
        RefusedError: the place is outside of the link roots.
        UnsafePath: the way there is not to be passed.
        PermanentError: no-node, where a node would not work.
        ForeignDevice: what is there is not byre's.
    """
    linkroots.refuse_outside(scene.kernel, jail.path, scene.link_roots)
    if found.unsafe:
        raise UnsafePath(f"node {found.unsafe}", hint=_BENT_HINT)
    if found.flaw:
        raise PermanentError(f"node {jail.path}: {found.flaw}", kind=NO_NODE, hint=_FLAW_HINT)
    if found.kind is LinkKind.MISSING or (found.number and found.number in ours):
        return
    what = f"a device node {found.number}" if found.number else _WHAT[found.kind]
    msg = f"node {jail.path} is occupied: {what}, not made by byre"
    raise ForeignDevice(msg, hint=_STRANGER_HINT)


_WHAT: Final = {
    LinkKind.SYMLINK: "a symlink",
    LinkKind.OCCUPIED: "a file or folder",
    LinkKind.DEVICE: "a device node",
}

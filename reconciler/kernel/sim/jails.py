"""The port's calls on device nodes in jails, on the simulated tree.

Each does what its namesake in `reconciler.kernel.nodes` does on a real one. There are no
permission bits here: of what can be wrong with a place, only `nodev` and `mknod_errno` are played.
May be imported by the rooms of `sim` only.
"""

from __future__ import annotations

import os
from pathlib import Path

from reconciler.kernel.sim.faults import Faults
from reconciler.kernel.sim.filecalls import read_link
from reconciler.kernel.sim.files import BlockNode
from reconciler.kernel.sim.host import Host
from reconciler.kernel.sim.step import change, question
from statemachine.errors import ForeignDevice, PermanentError
from statemachine.jail import Jail
from statemachine.observed import DeviceNumber, LinkKind, NodeObservation

MODE = 0o600


class JailSide:
    """The part of the port that is about nodes in jails."""

    host: Host
    faults: Faults

    @question
    def look_at_node(self, jail: Jail) -> NodeObservation:
        """Return what is where a jail's node is to be, and what is wrong with the place."""
        return _look(self.host, jail.path)

    @change
    def put_node(self, jail: Jail, device: DeviceNumber, *, replaces: DeviceNumber | None) -> bool:
        """Make a jail's node lead to a device. False if it does already."""
        there = _look(self.host, jail.path)
        if (there.number, there.uid, there.gid, there.mode) == (
            str(device), jail.uid, jail.gid, MODE,
        ):  # fmt: skip
            return False
        is_ours = there.kind is LinkKind.DEVICE and there.number in (str(device), str(replaces))
        if there.kind is not LinkKind.MISSING and not is_ours:
            raise _foreign(jail.path, there)
        place = self.host.tree.place(jail.path)
        if self.host.mknod_errno:
            raise PermanentError(there.flaw, errno=self.host.mknod_errno, kind="no-node")
        if is_ours:
            self.host.tree.unlink(jail.path)
        node = BlockNode(place.folder.fs, str(jail.path), self.host.now_ns(), device)
        node.uid, node.gid = jail.uid, jail.gid
        self.host.tree.add(jail.path, node)
        if is_ours:
            place.folder.sync()
        return True

    @change
    def drop_node(self, path: Path, device: DeviceNumber) -> bool:
        """Remove the node at `path` if it is of this number. False if nothing is there."""
        there = _look(self.host, path)
        if there.kind is LinkKind.MISSING:
            return False
        if there.number != str(device):
            raise _foreign(path, there)
        self.host.tree.unlink(path).sync()
        return True


def _look(host: Host, path: Path) -> NodeObservation:
    flaw = _flaw(host, path)
    there = read_link(host, path)
    node = host.tree.find(path)
    if not isinstance(node, BlockNode):
        missing = there.missing_parents
        return NodeObservation(kind=there.kind, missing_parents=missing, flaw=flaw)
    return NodeObservation(
        kind=there.kind,
        number=there.target,
        uid=node.uid,
        gid=node.gid,
        mode=node.mode,
        flaw=flaw,
    )


def _flaw(host: Host, path: Path) -> str:
    above = next(node for parent in path.parents if (node := host.tree.find(parent, follow=True)))
    if above.fs.nodev:
        return f"its mount, device {above.fs.device}, is nodev: a device node there opens nothing"
    if host.mknod_errno:
        return f"this process may make no device node: {os.strerror(host.mknod_errno)}"
    return ""


def _foreign(path: Path, there: NodeObservation) -> ForeignDevice:
    return ForeignDevice(f"{path} is not byre's: there is a {there.kind} {there.number}".strip())

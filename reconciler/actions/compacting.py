"""Actions that make the CoW file of a paused disk smaller: a new store beside it, then its name.

Two transitions, so that the log knows the new file before it has the old one's name: whichever of
them is in the place after a crash is the disk's own. See the package for the other rules.
May be imported by the package's own `__init__` only.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from reconciler.actions.scene import Scene
from reconciler.kernel.storejob import StoreJob
from statemachine.fileidentity import FileIdentity
from statemachine.units import Bytes


@attrs.frozen
class CompactCow:
    """Have a store beside the CoW file that has what differs from the base, and nothing else."""

    path: Path
    into: Path
    recorded: FileIdentity
    base: Path
    pin: FileIdentity
    size: Bytes

    def do(self, scene: Scene) -> bool:
        """Write it, unless it would not be smaller."""
        job = StoreJob(
            path=self.path,
            expected=scene.kernel.identify(self.path) or self.recorded,
            into=self.into,
            base=self.base,
            base_expected=scene.kernel.identify(self.base, follow=True) or self.pin,
            disk=self.size,
        )
        found = scene.kernel.compact_store(job)
        scene.cow_next = found.made
        scene.saved_bytes = found.before.count - found.after.count
        return found.made is not None

    def undo(self, scene: Scene) -> None:
        """Take it away; the CoW file is as it was."""
        if scene.cow_next is not None:
            scene.kernel.remove_file(self.into, scene.cow_next)

    def __str__(self) -> str:
        return f"write what differs from the base into {self.into}"


@attrs.frozen
class SwapCow:
    """Have the new store under the CoW file's name."""

    path: Path
    source: Path
    made: FileIdentity
    recorded: FileIdentity

    def do(self, scene: Scene) -> bool:
        """Rename it over the old one; if it is gone, or the old one was written to, let it be."""
        there = scene.kernel.identify(self.path)
        new = scene.kernel.identify(self.source)
        if there is not None and _is(there, self.made):
            scene.cow = there
            return False
        is_whole = new is not None and _is(new, self.made)
        if there is None or there.mtime_ns != self.recorded.mtime_ns or not is_whole:
            return False if new is None else scene.kernel.remove_file(self.source, new)
        scene.kernel.swap_file(self.source, self.made, self.path, there)
        scene.cow = scene.kernel.identify(self.path)
        return True

    def undo(self, scene: Scene) -> None:
        """The old store is gone; the new one shows the same disk."""

    def __str__(self) -> str:
        return f"give {self.source} the name {self.path}"


@attrs.frozen
class DropNext:
    """Have no store beside the CoW file: what is written from now on would not be in it."""

    path: Path
    made: FileIdentity

    def do(self, scene: Scene) -> bool:
        """Delete it if it is there."""
        found = scene.kernel.identify(self.path)
        if found is None or not _is(found, self.made):
            return False
        return scene.kernel.remove_file(self.path, found)

    def undo(self, scene: Scene) -> None:
        """It is written anew at the next pause."""

    def __str__(self) -> str:
        return f"delete {self.path}"


def _is(found: FileIdentity, made: FileIdentity) -> bool:
    """Tell whether both are one file; st_dev may be another after a reboot, size and time not."""
    return attrs.evolve(found, device=0) == attrs.evolve(made, device=0)

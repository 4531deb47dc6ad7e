"""Actions that make a disk larger than its base: its origin, its live table, a clone's own file.

The snapshot target wants an origin as long as itself, so the base's loop is made longer by a zero
target: a dm device of the disk's own, under the snapshot. See the package for the other rules.
May be imported by the package's own `__init__` only.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from reconciler.actions.dm import refuse_foreign, refuse_lost_base
from reconciler.actions.scene import Scene, in_use
from statemachine.errors import PermanentError, TransientError
from statemachine.observed import OriginTable
from statemachine.units import Bytes, Sectors


@attrs.frozen
class MakeOrigin:
    """Have the base under zeros, as long as the disk."""

    name: str
    uuid: str
    base_length: Sectors
    length: Sectors

    def do(self, scene: Scene) -> bool:
        """Make it, or make it longer under the snapshot that is on it."""
        assert scene.base_loop is not None, "AttachBase comes first"
        table = OriginTable(
            base=scene.base_loop.device, base_length=self.base_length, length=self.length
        )
        found = scene.kernel.dm(self.name)
        if found is not None:
            refuse_foreign(found, self.uuid)
            scene.origin = found.device
            if found.live and not found.suspended and found.origin == table:
                return False
        else:
            scene.origin = scene.kernel.dm_create(self.name, self.uuid)
            scene.origin_is_new = True
        scene.kernel.dm_load(self.uuid, table)
        scene.kernel.dm_resume(self.uuid)
        refuse_lost_base(scene, scene.base_loop, self.name)
        return True

    def undo(self, scene: Scene) -> None:
        """Remove it if it was made; a longer one than before does no harm."""
        if scene.origin_is_new:
            scene.kernel.dm_remove(self.name, self.uuid)

    def __str__(self) -> str:
        return f"create dm device {self.name}, the base and zeros up to {self.length.count} sectors"


@attrs.frozen
class RemoveOrigin:
    """Have no origin of the disk's own; the device above it is gone."""

    name: str
    uuid: str

    def do(self, scene: Scene) -> bool:
        """Remove it if it is ours."""
        found = scene.kernel.dm(self.name)
        if found is None or found.uuid != self.uuid:
            return False
        try:
            return scene.kernel.dm_remove(self.name, self.uuid)
        except TransientError as error:
            raise in_use(scene, f"/dev/mapper/{self.name}", found.device, error) from error

    def undo(self, scene: Scene) -> None:
        """It is made again by a restore."""

    def __str__(self) -> str:
        return f"remove dm device {self.name}"


@attrs.frozen
class GrowDm:
    """Have the live snapshot as long as the disk is to be, under whoever uses it."""

    name: str
    uuid: str
    length: Sectors

    def do(self, scene: Scene) -> bool:
        """Suspend it, give it the longer table, resume; its users wait for some milliseconds.

        The order is the kernel's: a table over another origin reads the exceptions from the CoW,
        so nothing may be under way; one over the same origin takes them from the table before,
        which must be suspended for it (snapshot_ctr and snapshot_preresume, dm-snap.c, 6.1).
        """
        assert scene.origin is not None, "MakeOrigin comes first"
        found = scene.kernel.dm(self.name)
        if found is None or found.uuid != self.uuid or found.table is None:
            raise TransientError(f"{self.name} is gone", kind="again")
        if found.table.length >= self.length and not found.suspended:
            return False
        table = attrs.evolve(found.table, origin=scene.origin, length=self.length)
        scene.kernel.dm_suspend(self.uuid)
        try:
            scene.kernel.dm_load(self.uuid, table)
        finally:
            scene.kernel.dm_resume(self.uuid)
        now = scene.kernel.dm(self.name)
        if now is None or now.table != table:
            msg = f"{self.name} did not become {self.length.count} sectors long"
            raise PermanentError(msg, kind="not-grown", hint="pause it and restore it")
        return True

    def undo(self, scene: Scene) -> None:
        """A disk never gets smaller: what was written past its old end would be lost."""

    def __str__(self) -> str:
        return f"make {self.name} {self.length.count} sectors long"


@attrs.frozen
class GrowOwn:
    """Have a clone's own file, and the loop on it, as large as the disk is to be."""

    path: Path
    size: Bytes

    def do(self, scene: Scene) -> bool:
        """Make the file longer, then tell the loop; its user sees zeros after the old end."""
        expected = scene.cow or scene.kernel.identify(self.path)
        if expected is None:
            raise TransientError(f"{self.path} is gone", kind="again")
        changed = scene.kernel.grow_file(self.path, expected, self.size)
        if changed:
            scene.cow = scene.kernel.identify(self.path)
        loop = scene.cow_loop
        if loop is None and scene.cow_loop_hint is not None:
            loop = scene.kernel.loop(scene.cow_loop_hint, named=False)
        if loop is not None and loop.backs(expected):
            changed = scene.kernel.loop_grow(loop) or changed
        return changed

    def undo(self, scene: Scene) -> None:
        """A disk never gets smaller."""

    def __str__(self) -> str:
        return f"make {self.path} {self.size.count} bytes long"

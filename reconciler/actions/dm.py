"""Actions on the dm device of a disk. See the package for the rules.

May be imported by the package's own `__init__` only.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

import attrs

from reconciler.actions.scene import Scene, in_use
from statemachine.errors import (
    ActionError,
    ForeignDevice,
    IdentityMismatch,
    PermanentError,
    RefusedError,
    TransientError,
)
from statemachine.observed import DmDevice, Loop, SnapshotHealth, SnapshotTable
from statemachine.units import Sectors

NO_DISCARD: Final = "no-discard"


def _refuse_lost_loops(scene: Scene, how: str) -> None:
    """Begin anew where a loop went with the device that held it: one with autoclear does.

    It has autoclear while its disk is live, or from somebody's `losetup -d` (kernel fact 11). When
    the device is taken away by hand, the loop goes with the last who has it open: that may be who
    looks at it, so that it is there when it is looked at, and gone when it is used.

    Raises:
        TransientError: one of the scene's loops is not what it was.
    """
    for loop in (scene.base_loop, scene.cow_loop):
        now = None if loop is None else scene.kernel.loop(loop.number, named=False)
        if loop is not None and (now is None or now.marker != loop.marker):
            raise TransientError(f"{loop.path} {how}", kind="again")


@attrs.frozen
class MakeDm:
    """Have the dm device of this name and UUID, with or without a table yet."""

    name: str
    uuid: str

    def do(self, scene: Scene) -> bool:
        """Make it; a device of this name that is not ours is refused and stays."""
        try:
            self._make(scene)
        except TransientError as error:
            found = scene.kernel.dm(self.name)
            if error.errno != errno.EBUSY or found is None:
                raise self._explained(scene, error) from error
            refuse_foreign(found, self.uuid)
            if found.live:
                scene.device = found.device
                return False
            # A crash left it half-made, perhaps with a table that was loaded and not resumed: the
            # kernel takes no second one on the same CoW (EINVAL, "handover failed", dm-snap.c).
            scene.kernel.dm_remove(self.name, self.uuid)
            _refuse_lost_loops(scene, f"went with the half-made {self.name}")
            self._make(scene)
        return True

    def _make(self, scene: Scene) -> None:
        scene.device = scene.kernel.dm_create(self.name, self.uuid)
        scene.dm_is_new = True

    def _explained(self, scene: Scene, error: TransientError) -> Exception:
        for line in scene.kernel.dm_names():
            if line.uuid == self.uuid and line.name != self.name:
                msg = f"our device {self.uuid} is named {line.name}, not {self.name}"
                hint = f"`dmsetup rename {line.name} {self.name}`"
                return IdentityMismatch(msg, hint=hint)
        return error

    def undo(self, scene: Scene) -> None:
        """Remove it."""
        scene.kernel.dm_remove(self.name, self.uuid)

    def __str__(self) -> str:
        return f"create dm device {self.name} ({self.uuid})"


@attrs.frozen
class LoadTable:
    """Have the snapshot of the base under the CoW as the device's table."""

    name: str
    uuid: str
    length: Sectors
    chunk: Sectors
    store: str = "P"
    """"P" for exceptions that are kept in the CoW file, "N" for a throwaway disk's."""
    discards: bool = False

    def do(self, scene: Scene) -> bool:
        """Load it into a device that has none; refuse a device with another one."""
        assert scene.base_loop is not None, "AttachBase comes first"
        assert scene.cow_loop is not None, "AttachCow comes first"
        table = SnapshotTable(
            length=self.length,
            origin=scene.origin or scene.base_loop.device,
            cow=scene.cow_loop.device,
            chunk=self.chunk,
            persistent=self.store,
            discards=self.discards,
        )
        found = None if scene.dm_is_new else scene.kernel.dm(self.name)
        if found is not None and found.live:
            is_same = found.table is not None and table == attrs.evolve(
                found.table, discards=self.discards
            )
            if not is_same:
                msg = f"{self.name} has another table: {found.table}; ours is {table}"
                raise IdentityMismatch(msg, hint="byre does not change a table under a user")
            return False
        try:
            scene.kernel.dm_load(self.uuid, table)
        except PermanentError as error:
            _refuse_lost_loops(scene, f"went while the table of {self.name} was loaded")
            if not self.discards or error.errno != errno.EINVAL:
                raise
            msg = f"{self.name}: this kernel's snapshot target takes no discards"
            hint = "say `discard = false`, or use Linux 5.3 or newer"
            raise PermanentError(msg, errno=error.errno, kind=NO_DISCARD, hint=hint) from error
        refuse_lost_base(scene, scene.base_loop, self.name)
        return True

    def undo(self, scene: Scene) -> None:
        """The table goes with the device."""

    def __str__(self) -> str:
        return f"load the snapshot table of {self.name}, {self.length.count} sectors"


@attrs.frozen
class ResumeDm:
    """Have the device's table live and its IO running, and a valid snapshot in it."""

    name: str
    uuid: str

    def do(self, scene: Scene) -> bool:
        """Resume it, and read its status back."""
        changed = scene.kernel.dm_resume(self.uuid)
        found = scene.kernel.dm(self.name)
        if found is None:
            msg = f"{self.name} was removed or renamed while it was resumed"
            raise TransientError(msg, kind="device-gone")
        health = found.status.health if found.status else SnapshotHealth.UNKNOWN
        if health is not SnapshotHealth.VALID:
            msg = f"{self.name} is live but its snapshot is {health}"
            raise PermanentError(msg, kind=f"snapshot-{health}", hint="restore a copy of the CoW")
        scene.device = found.device
        return changed

    def undo(self, scene: Scene) -> None:
        """A resumed device is taken back by removing it."""

    def __str__(self) -> str:
        return f"resume {self.name}"


@attrs.frozen
class FindDm:
    """Know the number of a device that is left as it is."""

    name: str
    uuid: str

    def do(self, scene: Scene) -> bool:
        """Look it up; changes nothing."""
        found = scene.kernel.dm(self.name)
        if found is None or found.uuid != self.uuid:
            raise TransientError(f"{self.name} is gone", kind="again")
        scene.device = found.device
        return False

    def undo(self, scene: Scene) -> None:
        """Nothing was changed."""

    def __str__(self) -> str:
        return f"leave {self.name} frozen"


@attrs.frozen
class HandOverCow:
    """Let the kernel detach the CoW's loop together with the dm device that now holds it."""

    path: Path

    def do(self, scene: Scene) -> bool:
        """Set autoclear; from now on no crash can leak this loop."""
        loop = scene.cow_loop
        if loop is None and scene.cow_loop_hint is not None:
            loop = scene.kernel.loop(scene.cow_loop_hint, named=False)
        return loop is not None and scene.kernel.loop_set_autoclear(loop)

    def undo(self, scene: Scene) -> None:
        """It goes with the dm device all the same."""

    def __str__(self) -> str:
        return f"hand the loop of {self.path} over to the dm device"


@attrs.frozen
class RemoveDm:
    """Have no dm device of this name and UUID."""

    name: str
    uuid: str

    def do(self, scene: Scene) -> bool:
        """Remove it; in use: name the holders. Never deferred, never forced."""
        try:
            return scene.kernel.dm_remove(self.name, self.uuid)
        except RefusedError:  # the name is another device's, and ours is gone
            return False
        except ActionError as error:
            found = scene.kernel.dm(self.name)
            if found is None or found.uuid != self.uuid:
                return False  # nor is there one where there is no device-mapper any more
            if isinstance(error, TransientError) and error.errno == errno.EBUSY:
                raise in_use(scene, f"/dev/mapper/{self.name}", found.device, error) from error
            raise

    def undo(self, scene: Scene) -> None:
        """The device is made again by a restore."""

    def __str__(self) -> str:
        return f"remove dm device {self.name}"


def refuse_foreign(found: DmDevice, uuid: str) -> None:
    """Raise ForeignDevice unless a dm device has our UUID."""
    if found.uuid != uuid:
        owner = found.uuid or "no UUID"
        msg = f"/dev/mapper/{found.name} exists and is not ours: it has {owner}, ours is {uuid}"
        raise ForeignDevice(msg, hint="remove or rename that device, or rename the disk")


def refuse_lost_base(scene: Scene, loop: Loop, name: str) -> None:
    """Refuse a table over the loop of a base that was detached a moment ago.

    The kernel takes such a table without a word: reads fail, status is valid, and no loop on the
    host can be attached any more while it exists (measured, Linux 6.1).
    """
    assert scene.base is not None, "CheckBase comes first"
    now = scene.kernel.loop(loop.number, named=False)
    if now is None or not now.backs(scene.base):
        msg = f"{loop.path} lost its base while {name} was made"
        raise TransientError(msg, kind="origin-lost")

"""Actions on loop devices: the shared one of a base, the private one of a disk's own file.

See the package for the rules.
May be imported by the package's own `__init__` only.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from typing import Final

import attrs

from reconciler.actions.scene import Scene, in_use
from statemachine.errors import (
    ActionError,
    BlockedError,
    PermanentError,
    RefusedError,
    TransientError,
)
from statemachine.fileidentity import FileIdentity
from statemachine.names import cow_marker
from statemachine.observed import Loop

TWO_LOOPS: Final = "two-loops"
NO_DIRECT_IO: Final = "no-direct-io"


@attrs.frozen
class AttachBase:
    """Have the base's one shared loop device, read-only."""

    path: Path

    def do(self, scene: Scene) -> bool:
        """Share the loop of the other disks on this base, or make it."""
        assert scene.base is not None, "CheckBase comes first"
        if scene.base_loop is not None and scene.base_loop.backs(scene.base):
            return False  # of a moment ago; `LoadTable` looks at it once more
        scene.base_loop, changed = scene.bases.attach(scene.disk, self.path, scene.base)
        return changed

    def undo(self, scene: Scene) -> None:
        """Give it back, unless another disk took it meanwhile."""
        assert scene.base is not None, "CheckBase comes first"
        scene.bases.release(scene.disk, scene.base)

    def __str__(self) -> str:
        return f"attach the shared read-only loop of {self.path}"


@attrs.frozen
class ReleaseBase:
    """Give the base's loop device back if this was the last disk on it."""

    path: Path
    pin: FileIdentity

    def do(self, scene: Scene) -> bool:
        """Release it, as this boot's loops know it: by the pin, or the file after a reboot."""
        found = None if scene.same_boot else scene.kernel.identify(self.path, follow=True)
        return scene.bases.release(scene.disk, found or self.pin)

    def undo(self, scene: Scene) -> None:
        """The next disk on the base makes it again."""

    def __str__(self) -> str:
        return f"give back the loop of {self.path} if nobody else uses it"


@attrs.frozen
class AttachCow:
    """Have one, and only one, loop device on the disk's own file."""

    path: Path
    disk_id: str
    generation: int
    is_just_attached: bool = False
    """Whether our own loop was put on it by the step before, which looked for others."""

    def do(self, scene: Scene) -> bool:
        """Take the one that is there, or make it; refuse when somebody else has one."""
        assert scene.cow is not None, "MakeCow, CloneBase or CheckCow comes first"
        marker = cow_marker(self.disk_id, self.generation)
        found = self._found(scene, scene.cow, marker)
        foreign = [loop for loop in found if loop.marker != marker]
        if foreign or len(found) > 1:
            names = tuple(loop.path for loop in foreign or found[1:])
            msg = f"{self.path} is already on {', '.join(names)}; two loops would destroy it"
            hint = f"detach it with `losetup -d {names[0]}`"
            raise BlockedError(msg, kind=TWO_LOOPS, holders=names, hint=hint)
        scene.cow_loop = found[0] if found else self._made(scene, scene.cow, marker)
        scene.cow_loop_hint = scene.cow_loop.number
        scene.device, scene.device_path = scene.cow_loop.device, scene.cow_loop.path
        return not found

    def _found(self, scene: Scene, file: FileIdentity, marker: str) -> tuple[Loop, ...]:
        """Return the loops on the file, by a scan of all loops only where one is due."""
        if scene.cow_is_new:
            return ()
        if self.is_just_attached and scene.cow_loop_hint is not None:
            loop = scene.kernel.loop(scene.cow_loop_hint, named=False)
            if loop is not None and loop.marker == marker and loop.backs(file):
                return (loop,)
        return loops_on(scene, file) if scene.kernel.is_open(self.path) else ()

    def _made(self, scene: Scene, file: FileIdentity, marker: str) -> Loop:
        try:
            return scene.kernel.loop_attach(self.path, file, marker=marker, read_only=False)
        except ActionError:
            # It may have been done all the same, and the file may go with the undo.
            with contextlib.suppress(ActionError, RefusedError):
                for loop in loops_on(scene, file):
                    if loop.marker == marker:
                        scene.kernel.loop_detach(loop)
            raise

    def undo(self, scene: Scene) -> None:
        """Detach it."""
        if scene.cow_loop is not None:
            scene.kernel.loop_detach(scene.cow_loop)

    def __str__(self) -> str:
        return f"attach a loop to {self.path}"


@attrs.frozen
class SetDirectIo:
    """Have the loop of the disk's own file go past the host's page cache, or through it."""

    path: Path
    on: bool

    def do(self, scene: Scene) -> bool:
        """Switch it, under whoever uses the device; the kernel flushes the file first."""
        return self._set(scene, on=self.on)

    def _set(self, scene: Scene, *, on: bool) -> bool:
        loop = scene.cow_loop
        if loop is None and scene.cow_loop_hint is not None:
            loop = scene.kernel.loop(scene.cow_loop_hint, named=False)
        try:
            return loop is not None and scene.kernel.loop_set_direct_io(loop, on=on)
        except PermanentError as error:
            if error.errno != errno.EINVAL:
                raise
            msg = f"{self.path} cannot have direct IO: its file system or its disk has none for it"
            hint = "say `direct_io = false`, or put the root on ext4 or xfs on 512-byte sectors"
            raise PermanentError(msg, errno=error.errno, kind=NO_DIRECT_IO, hint=hint) from error

    def undo(self, scene: Scene) -> None:
        """Switch it back."""
        self._set(scene, on=not self.on)

    def __str__(self) -> str:
        return f"turn direct IO {'on' if self.on else 'off'} for {self.path}"


@attrs.frozen
class OfferFile:
    """Offer the disk's own file itself as the device, where no loop device is permitted."""

    path: Path

    def do(self, scene: Scene) -> bool:
        """Note it for the outcome; changes nothing."""
        scene.device_path = str(self.path)
        return False

    def undo(self, scene: Scene) -> None:
        """Nothing was changed."""

    def __str__(self) -> str:
        return f"offer {self.path} as a plain file"


@attrs.frozen
class DetachCow:
    """Have no loop device of ours on the disk's own file."""

    path: Path
    disk_id: str
    generation: int

    def do(self, scene: Scene) -> bool:
        """Detach what is there; the kernel may have done it with the dm device (autoclear)."""
        changed = False
        for loop in self._ours(scene):
            changed |= self._detach(scene, loop)
        return changed

    def _ours(self, scene: Scene) -> list[Loop]:
        """Find our loops on the file; if it was deleted under them, by the marker alone."""
        marker = cow_marker(self.disk_id, self.generation)
        if scene.cow_loop_hint is None:
            found = scene.kernel.loops()
        else:
            seen = scene.kernel.loop(scene.cow_loop_hint, named=False)
            found = () if seen is None else (seen,)
        ours = [loop for loop in found if loop.marker == marker]
        file = scene.kernel.identify(self.path) if ours else None
        return [loop for loop in ours if file is None or loop.backs(file)]

    def _detach(self, scene: Scene, loop: Loop) -> bool:
        try:
            return scene.kernel.loop_detach(loop)
        except TransientError as error:
            if error.errno == errno.EBUSY:
                raise in_use(scene, loop.path, loop.device, error) from error
            raise

    def undo(self, scene: Scene) -> None:
        """The loop is made again by the next transition that needs it."""

    def __str__(self) -> str:
        return f"detach the loop of {self.path}"


def loops_on(scene: Scene, file: FileIdentity) -> tuple[Loop, ...]:
    """Return every loop device on a file, ours or not."""
    return tuple(loop for loop in scene.kernel.loops() if loop.backs(file))

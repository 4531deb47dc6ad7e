"""Actions on files: the base, the CoW file, a clone. See the package for the rules.

May be imported by the package's own `__init__` only.
"""

from __future__ import annotations

import errno
from pathlib import Path

import attrs

from reconciler.actions.scene import Scene
from reconciler.kernel.port import CowHeader
from statemachine.errors import IdentityMismatch, PermanentError, TransientError
from statemachine.fileidentity import FileIdentity
from statemachine.units import Bytes


@attrs.frozen
class CheckBase:
    """Refuse a base that is not the pinned one any more."""

    path: Path
    pin: FileIdentity

    def do(self, scene: Scene) -> bool:
        """Compare (device, inode, size, mtime); changes nothing."""
        if scene.base is not None:
            return False  # it was by this very pass, a moment ago
        found = scene.kernel.identify(self.path, follow=True)
        if found is None:
            msg = f"base {self.path} is missing"
            raise PermanentError(msg, kind="base-missing", hint="put the base back")
        if not self.pin.same_content(found, same_boot=scene.same_boot):
            msg = f"base {self.path} has changed: pinned is {self.pin}; found is {found}"
            hint = "put the pinned base back; a CoW is worthless on another base"
            raise IdentityMismatch(msg, hint=hint)
        scene.base = found
        return False

    def undo(self, scene: Scene) -> None:
        """Nothing was changed."""

    def __str__(self) -> str:
        return f"check base {self.path}"


@attrs.frozen
class MakeCow:
    """Make the sparse CoW file, large enough that a full rewrite never overflows it."""

    path: Path
    size: Bytes
    chunk: Bytes

    def do(self, scene: Scene) -> bool:
        """Make it, or take the empty one that an interrupted attempt left."""
        scene.cow_method = "sparse"
        try:
            scene.cow = scene.kernel.create_sparse(self.path, self.size)
        except PermanentError as error:
            if error.errno != errno.EEXIST:
                raise
            return self._take(scene, error)
        scene.cow_is_new = True
        return True

    def _take(self, scene: Scene, error: PermanentError) -> bool:
        """Take the file that is there, if it is as one that was just made."""
        found = scene.kernel.identify(self.path)
        if found is None:
            raise TransientError(f"{self.path} went just now", kind="again") from error
        header = scene.kernel.cow_header(self.path, self.chunk)
        if found.size != self.size or header is not CowHeader.EMPTY:
            msg = f"{self.path} exists and is not an empty CoW file of ours: {header}, {found}"
            raise IdentityMismatch(msg, hint="look at the file; move it away if it is not needed")
        scene.cow = found
        return False

    def undo(self, scene: Scene) -> None:
        """Delete the file that was made; it was never written to."""
        if scene.cow is not None:
            scene.kernel.remove_file(self.path, scene.cow)

    def __str__(self) -> str:
        return f"make CoW file {self.path} of {self.size.count} bytes"


@attrs.frozen
class CloneBase:
    """Make a private copy of the base: a reflink, else a sparse copy."""

    base: Path
    path: Path
    size: Bytes

    def do(self, scene: Scene) -> bool:
        """Copy it, or take the whole copy that an interrupted attempt left."""
        found = scene.kernel.identify(self.path)
        if found is not None:
            if found.size != self.size:
                msg = f"{self.path} exists with {found.size.count} bytes, not {self.size.count}"
                raise IdentityMismatch(msg, hint="look at the file; move it away if not needed")
            scene.cow = found
            return False
        method = scene.kernel.clone_file(self.base, self.path, self.size, expected=scene.base)
        scene.cow_method = method.value
        scene.cow = scene.kernel.identify(self.path)
        scene.cow_is_new = True
        return True

    def undo(self, scene: Scene) -> None:
        """Delete the copy that was made; it was never written to."""
        if scene.cow is not None:
            scene.kernel.remove_file(self.path, scene.cow)

    def __str__(self) -> str:
        return f"copy base {self.base} to {self.path}"


@attrs.frozen
class CheckCow:
    """Refuse to go live on a CoW file that is missing, damaged, or another one."""

    path: Path
    recorded: FileIdentity
    same_boot: bool
    chunk: Bytes
    headers: tuple[CowHeader, ...]

    def do(self, scene: Scene) -> bool:
        """Compare identity, and read the header; changes nothing."""
        if scene.cow is not None:
            return False  # made or checked by this very pass, a moment ago
        found = scene.kernel.identify(self.path)
        if found is None:
            msg = f"CoW file {self.path} is missing"
            raise PermanentError(msg, kind="cow-missing", hint="put it back, then `byre retry`")
        if not self.recorded.same_file(found, same_boot=self.same_boot):
            msg = f"CoW file {self.path} is another file: recorded {self.recorded}; found {found}"
            raise IdentityMismatch(msg, hint="put the recorded file back, then `byre retry`")
        header = scene.kernel.cow_header(self.path, self.chunk)
        if self.headers and header not in self.headers:
            msg = f"CoW file {self.path} is damaged: its exception store is {header}"
            raise PermanentError(
                msg, kind=f"cow-{header}", hint="restore a copy, then `byre retry`"
            )
        scene.cow = found
        return False

    def undo(self, scene: Scene) -> None:
        """Nothing was changed."""

    def __str__(self) -> str:
        return f"check CoW file {self.path}"


@attrs.frozen
class SyncCow:
    """Have the header that the kernel wrote into a new exception store survive a power cut.

    The kernel flushes it with the first exception only. Until then a power cut would leave an
    empty store under a disk that was told to be there, and that looks like a damaged one.
    """

    path: Path

    def do(self, scene: Scene) -> bool:
        """Flush the file; changes nothing that can be seen."""
        assert scene.cow is not None, "CheckCow comes first"
        scene.kernel.sync_file(self.path, scene.cow)
        return False

    def undo(self, scene: Scene) -> None:
        """Nothing was changed."""

    def __str__(self) -> str:
        return f"flush CoW file {self.path}"


@attrs.frozen
class PutInPlace:
    """Have another file be the disk's own: a copy of a kept point, which the log knows.

    What the disk had until then ends here. That is why it is the last action of its plan, and why
    a person's word comes before it.
    """

    source: Path
    path: Path
    expected: FileIdentity
    recorded: FileIdentity
    same_boot: bool = attrs.field(kw_only=True)
    """Whether `expected` was taken in this boot."""
    cow_same_boot: bool = attrs.field(kw_only=True)
    """Whether `recorded` was."""

    def do(self, scene: Scene) -> bool:
        """Rename it, or find that it was done; refuses any file that is neither."""
        there, waiting = scene.kernel.identify(self.path), scene.kernel.identify(self.source)
        expected = self.expected
        if there is not None and expected.same_file(there, same_boot=self.same_boot):
            scene.cow = there
            return scene.kernel.rename_over(self.source, self.path, expected=there, replaces=there)
        if there and not self.recorded.same_file(there, same_boot=self.cow_same_boot):
            msg = f"{self.path} is another file: recorded {self.recorded}; found {there}"
            raise IdentityMismatch(msg, hint="move it away; byre replaces only what it made")
        if waiting is None:
            msg = f"the copy of the point is gone: {self.source}"
            raise PermanentError(msg, kind="point-missing", hint="`byre restore --to` once more")
        if not expected.same_content(waiting, same_boot=self.same_boot):
            msg = f"{self.source} is another file: recorded {expected}; found {waiting}"
            raise IdentityMismatch(msg, hint="`byre restore --to` once more")
        scene.kernel.rename_over(
            self.source, self.path, expected=waiting, replaces=there or self.recorded
        )
        scene.cow = scene.kernel.identify(self.path)
        return True

    def undo(self, scene: Scene) -> None:
        """What was replaced does not come back; this is why it is the last action of a plan."""

    def __str__(self) -> str:
        return f"put {self.source.name} in the place of {self.path}"


@attrs.frozen
class RemoveCow:
    """Delete the disk's own file: its data ends here."""

    path: Path
    recorded: FileIdentity | None
    same_boot: bool

    def do(self, scene: Scene) -> bool:
        """Delete it if it is the recorded one, and nothing if it is gone."""
        if self.recorded is not None and self.same_boot:
            return scene.kernel.remove_file(self.path, self.recorded)
        found = scene.kernel.identify(self.path)
        if found is None:
            return False
        if self.recorded and not self.recorded.same_file(found, same_boot=False):
            msg = f"{self.path} is another file: recorded {self.recorded}; found {found}"
            raise IdentityMismatch(msg, hint="move it away; byre deletes only what it made")
        return scene.kernel.remove_file(self.path, found)

    def undo(self, scene: Scene) -> None:
        """Deleted data does not come back; this is why it is the last action of a plan."""

    def __str__(self) -> str:
        return f"delete {self.path}"

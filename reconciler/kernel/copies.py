"""The port's calls that copy our own files, and put one in the place of another.

May be imported by `linux` only.
"""

from __future__ import annotations

from pathlib import Path

from reconciler.kernel import clone
from reconciler.kernel.ioctl import failing
from reconciler.kernel.port import CloneMethod
from statemachine.fileidentity import FileIdentity
from statemachine.units import Bytes


class CopySide:
    """The part of the port that is about copies of files."""

    def shares_blocks(self, path: Path) -> bool:
        """Tell whether a copy of this file in its folder would be a reflink."""
        with failing(f"look at {path}"):
            return clone.shares_blocks(path)

    def clone_file(
        self,
        source: Path,
        target: Path,
        size: Bytes,
        *,
        expected: FileIdentity | None = None,
        durable: bool = True,
    ) -> CloneMethod:
        """Make `target` a private copy of `source`: a reflink, else a sparse copy."""
        with failing(f"copy {source} to {target}"):
            return clone.clone_file(source, target, size, expected=expected, durable=durable)

    def rename_over(
        self, source: Path, target: Path, *, expected: FileIdentity, replaces: FileIdentity
    ) -> bool:
        """Rename a file over another in one step, durable. False if it was done before."""
        with failing(f"put {source} in the place of {target}"):
            return clone.rename_over(source, target, expected=expected, replaces=replaces)

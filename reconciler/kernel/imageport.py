"""What the Kernel port has for base images: their digest, their mode, fs-verity.

The rules of `port` hold. May be imported by `port` and its implementations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from statemachine.fileidentity import FileIdentity

Tell = Callable[[int, int], None]
"""Is told how many bytes are done, of how many."""


class Images(Protocol):
    """A part of `port.Kernel`."""

    def digest(self, path: Path, expected: FileIdentity, tell: Tell) -> str:
        """Read a whole file and return its SHA-256 in hex; its holes cost no reading.

        IdentityMismatch if it is not `expected`, or was written to meanwhile. A symlink at its end
        is followed.
        """

    def file_mode(self, path: Path) -> int:
        """Return the permission bits of a file; a symlink at its end is followed."""

    def make_read_only(self, path: Path, expected: FileIdentity) -> bool:
        """Take the right to write from everybody in a file's mode. False if nobody had it.

        The owner can give it back, and root can write whatever the mode: it guards against
        mistakes. Needs to be the owner, or root.
        """

    def verity(self, path: Path) -> str:
        """Return what fs-verity measured of a file, as "sha256:..."; "" where it is off."""

    def enable_verity(self, path: Path, expected: FileIdentity) -> bool:
        """Turn fs-verity on: nobody can ever write to this file again. False if it was on.

        Reads all of it. PermanentError where the file system has no fs-verity (EOPNOTSUPP,
        ENOTTY) or somebody has the file open for writing (ETXTBSY, EBUSY: transient).
        """

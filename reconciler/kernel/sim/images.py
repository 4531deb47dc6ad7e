"""The port's calls on base images, on the simulated tree: digest, mode, fs-verity.

The file system has fs-verity if `Host.has_verity` says so; what it measures is the plain digest.
May be imported by the rooms of `sim` only.
"""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

from reconciler.kernel.imageport import Tell
from reconciler.kernel.sim.faults import Faults
from reconciler.kernel.sim.filecalls import check_identity
from reconciler.kernel.sim.files import File, os_error
from reconciler.kernel.sim.host import Host
from reconciler.kernel.sim.step import change, question
from statemachine.errors import IdentityMismatch
from statemachine.fileidentity import FileIdentity

_WRITERS = 0o222


class ImageSide:
    """The part of the port that is about base images."""

    host: Host
    faults: Faults

    @question
    def digest(self, path: Path, expected: FileIdentity, tell: Tell) -> str:
        """Return the SHA-256 of a whole file in hex."""
        file = _expected(self.host, path, expected)
        tell(file.size, file.size)
        return _digest(file)

    @question
    def file_mode(self, path: Path) -> int:
        """Return the permission bits of a file."""
        return _file(self.host, path).mode

    @change
    def make_read_only(self, path: Path, expected: FileIdentity) -> bool:
        """Take the right to write from everybody in a file's mode. False if nobody had it."""
        file = _expected(self.host, path, expected)
        had = file.mode & _WRITERS
        file.mode &= ~_WRITERS
        return bool(had)

    @question
    def verity(self, path: Path) -> str:
        """Return what fs-verity measured of a file; "" where it is off."""
        return _file(self.host, path).verity

    @change
    def enable_verity(self, path: Path, expected: FileIdentity) -> bool:
        """Turn fs-verity on. False if it was on."""
        file = _expected(self.host, path, expected)
        if not self.host.has_verity:
            raise os_error(errno.EOPNOTSUPP, path)
        if file.verity:
            return False
        file.verity = f"sha256:{_digest(file)}"
        return True


def _file(host: Host, path: Path) -> File:
    node = host.tree.get(path, follow=True)
    if not isinstance(node, File):
        raise os_error(errno.EINVAL, path)
    return node


def _expected(host: Host, path: Path, expected: FileIdentity) -> File:
    file = _file(host, path)
    check_identity(path, file, expected)
    if (file.size, file.mtime_ns) != (expected.size.count, expected.mtime_ns):
        raise IdentityMismatch(f"{path} was written to", hint=f"it was {expected}")
    return file


def _digest(file: File) -> str:
    return hashlib.sha256(file.read(0, file.size)).hexdigest()

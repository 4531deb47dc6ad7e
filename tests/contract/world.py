"""What the contract suite needs of a world: a kernel, a place for files, and a user's hands.

Two worlds implement it: `sim_world.SimWorld` in memory, `real_world.RealWorld` on this host. A
world touches only what lies in its folder or begins with its prefix. Hands raise OSError.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from reconciler.kernel.port import Kernel


class Closable(Protocol):
    """Something held open."""

    def close(self) -> None:
        """Let go; once more is harmless."""


class World(Protocol):
    """A kernel and everybody else who uses it."""

    @property
    def kernel(self) -> Kernel:
        """The implementation under test."""

    @property
    def folder(self) -> Path:
        """An empty folder, for files."""

    @property
    def prefix(self) -> str:
        """What the names of all dm devices begin with."""

    def make_file(self, name: str, size: int) -> Path:
        """Make a sparse file of `size` bytes in the folder."""

    def open(self, path: Path, *, write: bool = False) -> Closable:
        """Hold a file or device open."""

    def write(self, path: Path, offset: int, data: bytes) -> None:
        """Write; the data has reached the file or device when this returns."""

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Read what is there now."""

    def remove_dm_by_hand(self, name: str) -> None:
        """Remove a dm device without byre: dmsetup remove."""

    def detach_loop_by_hand(self, number: int) -> object:
        """Detach a loop without byre: LOOP_CLR_FD, whatever comes of it."""

    def cleanup(self) -> None:
        """Remove all that this world made."""


Factory = Callable[[int], World]
"""Makes a world whose file system has room for so many bytes."""

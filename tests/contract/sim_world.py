"""The contract suite's world in memory."""

from __future__ import annotations

from pathlib import Path

from reconciler.kernel.sim import Handle, SimKernel
from statemachine.units import Bytes


class SimWorld:
    """A `World` on `SimKernel`; there is nothing to clean up."""

    def __init__(self, room: int | None = None) -> None:
        self.kernel = SimKernel()
        self.prefix = "byre-test-"
        self.folder = self.kernel.mount("/world", None if room is None else Bytes(room))

    def make_file(self, name: str, size: int) -> Path:
        """Make a sparse file in the world's folder."""
        return self.kernel.make_file(self.folder / name, size)

    def open(self, path: Path, *, write: bool = False) -> Handle:
        """Hold a file or device open."""
        return self.kernel.open(path, write=write)

    def write(self, path: Path, offset: int, data: bytes) -> None:
        """Write to a file or device."""
        self.kernel.write(path, offset, data)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Read from a file or device."""
        return self.kernel.read(path, offset, length)

    def remove_dm_by_hand(self, name: str) -> None:
        """Remove a dm device: dmsetup remove."""
        self.kernel.remove_dm_by_hand(name)

    def detach_loop_by_hand(self, number: int) -> bool:
        """Detach a loop: losetup -d."""
        return self.kernel.detach_loop_by_hand(number)

    def cleanup(self) -> None:
        """Do nothing."""

"""The transient exception store ("N"): which chunks were copied is known to nobody but the device.

There is no header and no metadata; the first chunk of the CoW device is the first copy. A device
that is made anew on the same file begins with nothing.

Source: drivers/md/dm-snap-transient.c of 6.1. Raises OSError. May be imported by the rooms of `sim`
only.
"""

from __future__ import annotations

from reconciler.kernel.sim.loops import LoopDevice
from reconciler.kernel.sim.store import Store
from statemachine.observed import SnapshotHealth, SnapshotStatus
from statemachine.units import Sectors


class TransientStore(Store):
    """A store that forgets; see `Store`."""

    __slots__ = ("_used",)

    def __init__(self, cow: LoopDevice, chunk_sectors: int) -> None:
        super().__init__(cow, chunk_sectors, keeps_overflow=False)
        self._used = 0

    def open(self) -> None:
        """Begin with nothing, whatever is on the device."""

    def status(self) -> SnapshotStatus:
        """Return the numbers of transient_usage(), or the word of its ill health."""
        if not self.valid:
            return SnapshotStatus(health=SnapshotHealth.INVALID)
        return SnapshotStatus(
            health=SnapshotHealth.VALID,
            used=Sectors(self._used * self.chunk_sectors),
            total=Sectors(self.cow.sectors),
            metadata=Sectors(0),
        )

    def add(self, old: int, content: bytes) -> bool:
        """Give a chunk of the origin its own copy; False if there is no room for it."""
        if self.cow.sectors < (self._used + 1) * self.chunk_sectors:
            return self._lost()
        try:
            self.cow.write(self._used * self.chunk_bytes, content)
        except OSError:
            return self._lost()
        self.exceptions[old] = self._used
        self._used += 1
        return True

    def invalidate(self) -> None:
        """Lose all exceptions; nothing on the device says so."""
        self.valid = False

    def _lost(self) -> bool:
        self.invalidate()
        return False

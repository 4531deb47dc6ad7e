"""The origin of a disk that is larger than its base, in memory: a base's loop, then zeros.

Source: drivers/md/dm-linear.c and dm-zero.c of 6.1, measured (tests/contract). Only read: a
snapshot never writes to its origin. May be imported by the rooms of `sim` only.
"""

from __future__ import annotations

import errno

from reconciler.kernel.sim.files import os_error
from reconciler.kernel.sim.loops import LOOP_MAJOR, Loops
from statemachine.observed import OriginTable
from statemachine.units import Sectors


class Origin:
    """One loaded table of a base that is made longer."""

    __slots__ = ("_loops", "_minor", "base", "table")

    def __init__(self, table: OriginTable, minor: int, loops: Loops) -> None:
        """Open the loop; ENXIO if it is none, EINVAL if it is shorter than is said."""
        if table.base.major != LOOP_MAJOR:
            raise os_error(errno.ENXIO, table.base)
        self.table = table
        self.base = loops.made(table.base.minor)
        if 0 < self.base.sectors < table.base_length.count:
            raise os_error(errno.EINVAL, "base too small for target")
        self._minor = minor
        self._loops = loops
        loops.claim(self.base, minor)

    @property
    def length(self) -> Sectors:
        """Of the base and of the zeros after it."""
        return self.table.length

    def close(self) -> None:
        """Close the loop."""
        self._loops.unclaim(self.base, self._minor)

    def read(self, offset: int, length: int) -> bytes:
        """Read of the base what is there, and zeros after it."""
        end = self.table.base_length.to_bytes().count
        there = max(0, min(length, end - offset))
        return (self.base.read(offset, there) if there else b"").ljust(length, b"\0")

    def write(self, offset: int, data: bytes) -> bool:
        """Take no write: the base is read-only."""
        del offset, data
        return False

    def flush(self) -> None:
        """Do nothing."""

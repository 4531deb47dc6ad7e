"""Loop devices in memory: binding, openers, autoclear, and blocks read and written through them.

A number keeps its device object for ever, bound or not, as in the kernel: an unbound one can be
opened, and held, and then cannot be bound (LOOP_CONFIGURE says EBUSY to a claimed device).

Source: drivers/block/loop.c of 6.1. Raises OSError, and IdentityMismatch from `check_same`. May be
imported by the rooms of `sim` only.
"""

from __future__ import annotations

import errno
import heapq
from collections.abc import Callable
from typing import Final

from reconciler.kernel.sim.files import File, in_sectors, os_error
from statemachine.errors import IdentityMismatch
from statemachine.observed import DeviceNumber, Holder, Loop
from statemachine.units import SECTOR_BYTES

LOOP_MAJOR: Final = 7


class LoopDevice:
    """One number. `file` is None while it is unbound."""

    __slots__ = ("autoclear", "claims", "device", "direct_io", "file", "handles", "marker",
                 "now_ns", "number", "read_only", "sectors")  # fmt: skip

    def __init__(self, number: int, now_ns: Callable[[], int]) -> None:
        self.number = number
        self.device: Final = DeviceNumber(LOOP_MAJOR, number)
        self.file: File | None = None
        self.marker = ""
        self.read_only = False
        self.autoclear = False
        self.direct_io = False
        self.sectors = 0
        """As it was when the file was bound, or its capacity last set."""
        self.claims: dict[int, int] = {}
        """Tables of dm devices that opened it, by minor: held exclusively."""
        self.handles: list[Holder] = []
        self.now_ns = now_ns

    @property
    def in_use(self) -> bool:
        """Whether anybody has it open."""
        return bool(self.claims or self.handles)

    def observed(self) -> Loop | None:
        """Return what LOOP_GET_STATUS64 and sysfs show, None if it is not bound."""
        if self.file is None:
            return None
        return Loop(
            number=self.number,
            device=self.device,
            backing_device=self.file.fs.device,
            backing_inode=self.file.inode,
            backing_path=self.file.path + ("" if self.file.linked else " (deleted)"),
            marker=self.marker,
            size=in_sectors(self.sectors),
            read_only=self.read_only,
            autoclear=self.autoclear,
            direct_io=self.direct_io,
        )

    def grow(self) -> bool:
        """LOOP_SET_CAPACITY: take the size of the file; tells whether it was another."""
        before = self.sectors
        self.sectors = self.file.size // SECTOR_BYTES if self.file is not None else 0
        return self.sectors != before

    def set_direct_io(self, *, on: bool) -> bool:
        """LOOP_SET_DIRECT_IO: flush and switch; EINVAL where the file system cannot."""
        if self.file is None or self.direct_io == on:
            return False
        if on and not self.file.fs.direct_io:
            raise os_error(errno.EINVAL, f"loop{self.number}")
        self.flush()
        self.direct_io = on
        return True

    def read(self, offset: int, length: int) -> bytes:
        """Read whole ranges; EIO outside of the device, or where the file was cut off."""
        data = self._file(offset, length).read(offset, length)
        if len(data) < length:
            raise os_error(errno.EIO, f"loop{self.number}")
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Write; EIO also stands for the file system's ENOSPC, as loop.c reports it."""
        file = self._file(offset, len(data))
        if self.read_only:
            raise os_error(errno.EIO, f"loop{self.number}")
        try:
            file.write(offset, data, self.now_ns())
        except OSError as error:
            raise os_error(errno.EIO, f"loop{self.number}") from error

    def flush(self) -> None:
        """Make what was written survive a power cut: fsync of the file."""
        if self.file is not None:
            self.file.sync()

    def _file(self, offset: int, length: int) -> File:
        if self.file is None or offset + length > self.sectors * SECTOR_BYTES:
            raise os_error(errno.EIO, f"loop{self.number}")
        return self.file


class Loops:
    """All loop devices; `changed` is told the kernel name of each that is bound or cleared."""

    __slots__ = ("_by_number", "_changed", "_free", "_next", "_now_ns")

    def __init__(self, changed: Callable[[str], None], now_ns: Callable[[], int]) -> None:
        self._by_number: dict[int, LoopDevice] = {}
        self._free: list[int] = []
        self._next = 0
        self._changed = changed
        self._now_ns = now_ns

    def bound(self) -> list[LoopDevice]:
        """Return all that are on a file, by number."""
        loops = (self._by_number[number] for number in sorted(self._by_number))
        return [loop for loop in loops if loop.file is not None]

    def get(self, number: int) -> LoopDevice | None:
        """Return a device that was ever made, bound or not."""
        return self._by_number.get(number)

    def made(self, number: int) -> LoopDevice:
        """Return a device, made by being asked for (loop_probe)."""
        if number not in self._by_number:
            self._make(number)
        return self._by_number[number]

    def attach(self, file: File, *, marker: str, read_only: bool) -> LoopDevice:
        """Bind the lowest free number to a file; EBUSY if somebody claimed that number."""
        if not self._free:
            self._make(self._unused_number())
        loop = self._by_number[self._free[0]]
        if loop.claims:
            raise os_error(errno.EBUSY, f"loop{loop.number}")
        heapq.heappop(self._free)
        file.users += 1
        loop.file = file
        loop.marker = marker
        loop.read_only = read_only
        loop.autoclear = loop.direct_io = False
        loop.sectors = file.size // SECTOR_BYTES
        self._changed(f"loop{loop.number}")
        return loop

    def clear(self, loop: LoopDevice) -> bool:
        """LOOP_CLR_FD: detach, or set autoclear if it is in use; ENXIO if it is not bound.

        Returns:
            Whether it is detached now. The kernel says yes to both (kernel fact 11).
        """
        if loop.file is None:
            raise os_error(errno.ENXIO, f"loop{loop.number}")
        loop.autoclear = True
        return self.released(loop)

    def released(self, loop: LoopDevice) -> bool:
        """Detach a loop with autoclear that nobody has open any more; tells whether it did."""
        if loop.file is None or not loop.autoclear or loop.in_use:
            return False
        loop.file.release()
        loop.file = None
        loop.autoclear = False
        loop.sectors = 0
        heapq.heappush(self._free, loop.number)
        self._changed(f"loop{loop.number}")
        return True

    def claim(self, loop: LoopDevice, minor: int) -> None:
        """Open it for a table of a dm device."""
        loop.claims[minor] = loop.claims.get(minor, 0) + 1

    def unclaim(self, loop: LoopDevice, minor: int) -> None:
        """Close it for a table of a dm device."""
        loop.claims[minor] -= 1
        if not loop.claims[minor]:
            del loop.claims[minor]
        self.released(loop)

    def _make(self, number: int) -> None:
        self._by_number[number] = LoopDevice(number, self._now_ns)
        heapq.heappush(self._free, number)

    def _unused_number(self) -> int:
        while self._next in self._by_number:
            self._next += 1
        return self._next


def check_same(meant: Loop, now: Loop) -> None:
    """Raise IdentityMismatch if a number is on another file now than the one that is meant."""
    mine, its = ((each.backing_device, each.backing_inode) for each in (meant, now))
    if mine != its:
        raise IdentityMismatch(
            f"{meant.path} is on device {its[0]}, inode {its[1]} now, not on "
            f"device {mine[0]}, inode {mine[1]} ({meant.backing_path})",
        )

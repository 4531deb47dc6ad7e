"""Sizes as types: bytes and 512-byte sectors; which sizes a chunk of an exception store may have.

A size that crosses a module border carries its unit; every division says whether it is exact,
rounded down or rounded up; every result is checked against the kernel's own limits. Plain
arithmetic between different units is a type error and raises.

The limits: the kernel holds file sizes in `loff_t` (signed 64 bit) and device sizes in
`sector_t` (unsigned 64 bit, 512-byte units whatever the hardware does), so the largest size that
both can say is 2**63 - 512 bytes, 2**54 - 1 sectors.
Pure; may be imported by everything.
"""

from __future__ import annotations

import re
from typing import ClassVar, Self

import attrs

SECTOR_BYTES = 512
CHUNK_SECTORS = 8  # "P 8" in a dm table: 4 KiB chunks, where no spec says otherwise
CHUNK_BYTES = CHUNK_SECTORS * SECTOR_BYTES
CHUNK_SIZES = tuple(2**power for power in range(12, 20))
"""The chunks that a spec may ask for, in bytes: powers of two, 4 to 512 KiB, which is what
lvcreate(8) allows for snapshots. The kernel takes others, up to 1 GiB, and nobody uses them."""
LARGEST_BYTES = 2**63 - SECTOR_BYTES

_SUFFIX = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_SIZE = r"(\d{1,19})\s*([kmgtp]?)(?:i?b)?"


class UnitError(ValueError):
    """A size is outside of what the kernel can say, or does not divide exactly."""


@attrs.frozen(init=False)
class _Size:
    """A count of one unit; adds to and compares with its own kind only."""

    largest: ClassVar[int] = LARGEST_BYTES

    count: int

    def __init__(self, count: int) -> None:
        # Not by attrs, which calls a validator for each: a look at a disk makes dozens of sizes.
        if type(count) is not int or not 0 <= count <= self.largest:
            raise _refusal(type(self), count)
        object.__setattr__(self, "count", count)

    def __add__(self, other: Self) -> Self:
        return type(self)(self.count + self._same_kind(other))

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.count - self._same_kind(other))

    # Not by attrs, which makes two tuples for each: a look at a disk compares a dozen sizes.

    def __lt__(self, other: Self) -> bool:
        return self.count < other.count if type(other) is type(self) else NotImplemented

    def __le__(self, other: Self) -> bool:
        return self.count <= other.count if type(other) is type(self) else NotImplemented

    def __gt__(self, other: Self) -> bool:
        return self.count > other.count if type(other) is type(self) else NotImplemented

    def __ge__(self, other: Self) -> bool:
        return self.count >= other.count if type(other) is type(self) else NotImplemented

    def __int__(self) -> int:
        return self.count

    def _same_kind(self, other: Self) -> int:
        if type(other) is not type(self):
            msg = f"cannot mix {type(self).__name__} with {type(other).__name__}"
            raise UnitError(msg)
        return other.count


def _refusal(kind: type[_Size], value: object) -> UnitError:
    unit = kind.__name__.lower()
    if type(value) is not int:
        return UnitError(f"a size in {unit} is a whole number, not {value!r}")
    return UnitError(f"{value} {unit} is outside of 0 to {kind.largest} {unit}")


@attrs.frozen(init=False)
class Bytes(_Size):
    """A size in bytes, 0 to 2**63 - 512."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "4096", "64M", "10GiB": a whole number and a binary suffix.

        Raises:
            UnitError: the text is no such size or is out of range.
        """
        match = re.fullmatch(_SIZE, text.strip(), re.IGNORECASE | re.ASCII)
        if match is None:
            msg = f"{text!r} is not a size; write a whole number with B, K, M, G, T or P"
            raise UnitError(msg)
        return cls(int(match[1]) * _SUFFIX[match[2].lower()])

    def sectors_exact(self) -> Sectors:
        """Convert to sectors; raises UnitError unless it is a multiple of 512."""
        if self.count % SECTOR_BYTES:
            msg = f"{self.count} bytes is not a multiple of {SECTOR_BYTES}"
            raise UnitError(msg)
        return Sectors(self.count // SECTOR_BYTES)

    def rounded_up(self, piece: Self) -> Self:
        """Return the next multiple of a size, or this one if it is one; raises UnitError."""
        return type(self)(-(-self.count // piece.count) * piece.count)

    def __str__(self) -> str:
        """Print with one binary suffix, one digit after the point: "1.5 GiB"."""
        size = float(self.count)
        for suffix in ("B", "KiB", "MiB", "GiB", "TiB"):
            if size < 1024:  # noqa: PLR2004 - the base of the suffixes above
                return f"{size:.0f} B" if suffix == "B" else f"{size:.1f} {suffix}"
            size /= 1024
        return f"{size:.1f} PiB"


@attrs.frozen(init=False)
class Sectors(_Size):
    """A size in 512-byte sectors, the unit of dm tables and of sysfs."""

    largest: ClassVar[int] = LARGEST_BYTES // SECTOR_BYTES

    def to_bytes(self) -> Bytes:
        """Convert to bytes; always exact."""
        return Bytes(self.count * SECTOR_BYTES)


DEFAULT_CHUNK = Bytes(CHUNK_BYTES)

"""Room on the file system of the CoW files: how much is left, and what that allows.

A full file system destroys snapshots for ever (kernel fact 3), so two watermarks are kept. Under
the low one no new disk begins. Under the critical one live disks are frozen, before a write of
theirs can fail. They go on when there is room up to half way between the two, so that they do not
freeze and thaw by turns.

Pure; may be imported by config and everything above.
"""

from __future__ import annotations

import enum
import re
from typing import Final, Self

import attrs

from statemachine.units import LARGEST_BYTES, Bytes, UnitError

_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)\s*%")
WATERMARK_RULE: Final = "a share such as '10%', a size such as '8GiB', or '10%,8GiB': the smaller"


class SpaceLevel(enum.StrEnum):
    """How much room is left, in what it allows."""

    PLENTY = "plenty"
    LOW = "low"
    """No new disks."""
    CRITICAL = "critical"
    """Live disks are frozen."""


@attrs.frozen(kw_only=True)
class Watermark:
    """An amount of free space, as a share of the file system between bounds in bytes."""

    share: float = 0.0
    """0 to 1."""
    least: Bytes = attrs.field(factory=lambda: Bytes(0))
    most: Bytes = attrs.field(factory=lambda: Bytes(LARGEST_BYTES))
    share_max: float = 1.0
    """Never more than this share, whatever `least` says: for small file systems."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "10%", "8GiB" or "10%,8GiB" (whichever is less).

        Raises:
            ValueError: it is none of these.
        """
        parts = [part.strip() for part in text.split(",")]
        shares = [float(match[1]) / 100 for part in parts if (match := _SHARE.fullmatch(part))]
        try:
            sizes = [Bytes.parse(part) for part in parts if not part.endswith("%")]
        except UnitError as error:
            raise ValueError(WATERMARK_RULE) from error
        if len(shares) + len(sizes) != len(parts) or len(shares) > 1 or len(sizes) > 1:
            raise ValueError(WATERMARK_RULE)
        if shares and shares[0] > 1:
            raise ValueError(WATERMARK_RULE)
        if not shares:
            return cls(least=sizes[0], most=sizes[0])
        return cls(share=shares[0], most=sizes[0]) if sizes else cls(share=shares[0])

    def of(self, total: Bytes) -> Bytes:
        """Return the amount for a file system of this size."""
        amount = max(int(total.count * self.share), self.least.count)
        return Bytes(min(amount, self.most.count, int(total.count * self.share_max)))


LOW: Final = Watermark(share=0.10, least=Bytes(128 * 2**20), most=Bytes(2 * 2**30), share_max=0.40)
CRITICAL: Final = Watermark(share=0.05, least=Bytes(64 * 2**20), most=Bytes(2**30), share_max=0.25)
"""Writes that are on their way when a disk is frozen still land: a dm-snapshot has up to 2,048
chunks being copied (8 MiB, `cow_count` in dm-snap.c), and many disks write at once."""


@attrs.frozen(kw_only=True)
class Space:
    """The room on one file system at one moment, and the watermarks in bytes."""

    available: Bytes
    total: Bytes
    low: Bytes
    critical: Bytes

    @property
    def level(self) -> SpaceLevel:
        """What the room allows."""
        if self.available < self.critical:
            return SpaceLevel.CRITICAL
        return SpaceLevel.LOW if self.available < self.low else SpaceLevel.PLENTY

    @property
    def thaw(self) -> Bytes:
        """How much there must be before frozen disks go on."""
        return Bytes((self.critical.count + max(self.low, self.critical).count) // 2)

    def __str__(self) -> str:
        """Print the numbers that a person needs: "1.0 MiB of 64.0 MiB are free, ..."."""
        return (
            f"{self.available} of {self.total} are free; "
            f"low is under {self.low}, critical under {self.critical}"
        )


@attrs.frozen(kw_only=True)
class Watermarks:
    """Both watermarks of a root."""

    low: Watermark = LOW
    critical: Watermark = CRITICAL

    def judge(self, *, available: Bytes, total: Bytes) -> Space:
        """Return what is free with the watermarks for this file system."""
        return Space(
            available=available,
            total=total,
            low=self.low.of(total),
            critical=self.critical.of(total),
        )

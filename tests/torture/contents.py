"""What the blocks of a disk must hold: pure, so that a test can show that a lost byte is seen.

A block of 4096 bytes is stamped: it says which disk, generation and block it is, and which write
it was. After a crash a block holds the write that was flushed last, or one that was begun since;
anything else, a byte of another disk included, is a loss.
May be imported by the torture tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

BLOCK: Final = 4096
_LINE: Final = 64


class DataLost(AssertionError):
    """A block holds what it must not; the message says which, and what is in it."""


def stamped(disk: str, generation: int, block: int, stamp: int) -> bytes:
    """Return the 4096 bytes of one write; readable in a hex dump."""
    line = f"{disk} generation {generation} block {block} stamp {stamp}\n"
    return line.encode().ljust(_LINE, b".") * (BLOCK // _LINE)


def pattern(name: str, blocks: int) -> bytes:
    """Return the bytes of a base: every block differs from every other of every base."""
    return b"".join(stamped(name, 0, block, 0) for block in range(blocks))


@attrs.define(eq=False)
class Contents:
    """The blocks of one disk in one generation.

    Args:
        disk: its name.
        generation: a removed disk's data ends with its generation.
        base: what a block holds that was never written.
    """

    disk: str
    generation: int
    base: bytes
    _flushed: dict[int, int] = attrs.field(factory=dict, init=False)
    _begun: dict[int, list[int]] = attrs.field(factory=dict, init=False)

    def begin(self, blocks: Iterable[int], stamp: int) -> None:
        """Note a write before it is made: from now on it may be there."""
        for block in blocks:
            self._begun.setdefault(block, []).append(stamp)

    def flush(self) -> None:
        """Note that all writes begun so far were flushed: from now on the last must be there."""
        self._flushed |= {block: stamps[-1] for block, stamps in self._begun.items()}
        self._begun.clear()

    def stamps(self) -> dict[int, int]:
        """Return the flushed stamp of each block that was written."""
        return dict(self._flushed)

    def settle(self, stamps: dict[int, int]) -> None:
        """Take what a check found after a crash as flushed: nothing is in flight any more."""
        self._begun.clear()
        self._flushed = dict(stamps)

    def check(self, data: bytes) -> dict[int, int]:
        """Compare every byte of the disk.

        Args:
            data: the whole disk.

        Returns:
            The stamp of each block that was written, as `settle` takes it.

        Raises:
            DataLost: with the first bad block; nothing is changed.
        """
        if len(data) != len(self.base):
            raise DataLost(f"{self.disk} has {len(data)} bytes, not {len(self.base)}")
        found: dict[int, int] = {}
        for block in range(len(data) // BLOCK):
            stamp = self._stamp_in(block, data[block * BLOCK : (block + 1) * BLOCK])
            if stamp is not None:
                found[block] = stamp
        return found

    def _stamp_in(self, block: int, data: bytes) -> int | None:
        flushed = self._flushed.get(block)
        if data == self._bytes(block, flushed):
            return flushed
        allowed = self._begun.get(block, [])
        for stamp in allowed:
            if data == self._bytes(block, stamp):
                return stamp
        msg = (
            f"{self.disk} generation {self.generation}: block {block} should hold "
            f"{_named(flushed)}, or a write begun since ({allowed}); it holds {data[:_LINE]!r}"
        )
        raise DataLost(msg)

    def _bytes(self, block: int, stamp: int | None) -> bytes:
        if stamp is None:
            return self.base[block * BLOCK : (block + 1) * BLOCK]
        return stamped(self.disk, self.generation, block, stamp)


def _named(stamp: int | None) -> str:
    return "the base's block" if stamp is None else f"stamp {stamp}"

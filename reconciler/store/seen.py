"""A set of chunk numbers that costs little where they are dense.

One bit a chunk, in pages of 512. A store that a guest has filled needs about half a byte for each
exception. One that was planted with numbers far apart needs about 200 bytes for each, which is what
a set of numbers would cost.

Pure. May be imported by `store` and tests.
"""

from __future__ import annotations

_PAGE_BITS = 512


class Seen:
    """Which numbers have been seen."""

    __slots__ = ("_pages",)

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def add(self, number: int) -> bool:
        """Note a number, 0 or more; returns whether it is a new one."""
        page, bit = divmod(number, _PAGE_BITS)
        bits = self._pages.get(page)
        if bits is None:
            bits = self._pages[page] = bytearray(_PAGE_BITS // 8)
        byte, mask = bit >> 3, 1 << (bit & 7)
        if bits[byte] & mask:
            return False
        bits[byte] |= mask
        return True

"""Where two images differ: read only where they may, told in blocks of 4 KiB, joined to spans.

May be imported by copying, the command line and tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconciler.content.image import Image
from reconciler.content.spans import Span
from reconciler.kernel import extents


def differences(left: Image, right: Image, where: Iterable[Span]) -> Iterator[Span]:
    """Yield, in order, what differs, touching spans joined.

    Args:
        left: one of them.
        right: the other, of the same size.
        where: the only parts, in order, in which they may differ.
    """
    last: Span | None = None
    for part in where:
        for start, end in extents.pieces(*part):
            for found in _differences(left.read(start, end), right.read(start, end), start):
                if last is not None and last.end == found.start:
                    last = Span(last.start, found.end)
                    continue
                if last is not None:
                    yield last
                last = found
    if last is not None:
        yield last


def _differences(left: bytes, right: bytes, at: int) -> Iterator[Span]:
    if left == right:
        return
    for offset in range(0, len(left), extents.BLOCK_BYTES):
        end = min(offset + extents.BLOCK_BYTES, len(left))
        if left[offset:end] != right[offset:end]:
            yield Span(at + offset, at + end)

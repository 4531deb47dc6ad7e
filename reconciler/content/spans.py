"""Spans of bytes: parts of a disk, from `start` up to and without `end`. Pure.

May be imported by the rest of `content`, everything above it, and tests.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Span(NamedTuple):
    """A part of a disk, in bytes."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.end - self.start


def union(*sorted_spans: Iterable[tuple[int, int]]) -> Iterator[Span]:
    """Yield what is in any of several sorted lists of spans: sorted, touching ones joined."""
    start = end = -1
    for begin, stop in heapq.merge(*sorted_spans):
        if begin > end:
            if start < end:
                yield Span(start, end)
            start, end = begin, stop
        else:
            end = max(end, stop)
    if start < end:
        yield Span(start, end)


def total(spans: Iterable[Span]) -> int:
    """Return how many bytes are in spans that do not overlap."""
    return sum(span.size for span in spans)

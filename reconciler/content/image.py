"""What a disk shows, as something to read: a plain file, or a base under its exceptions.

Reads at offsets, in pieces that the caller chooses. Both read zeros past the end of their file:
a disk may be longer than its base. Whoever opens the files keeps them open.
May be imported by the rest of `content`, everything above it, and tests.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator
from typing import Protocol

import attrs

from reconciler.content.changes import Changes
from reconciler.content.spans import Span, union
from reconciler.kernel import extents


class Image(Protocol):
    """A disk's content."""

    @property
    def size(self) -> int:
        """How many bytes it has."""

    def read(self, start: int, end: int) -> bytes:
        """Return a part of it; raises OSError."""

    def data(self) -> Iterator[Span]:
        """Yield, in order, what may be other than zeros."""

    def written(self) -> Iterator[Span]:
        """Yield, in order, what may be other than what its base has there."""


@attrs.frozen(kw_only=True)
class Plain:
    """A whole image in one file, of `length` bytes; zeros follow up to `size`.

    Attributes:
        descriptor: open for reading.
        base: what it was copied from; None if that is not known.
    """

    descriptor: int
    size: int
    length: int
    base: Plain | None = None

    @classmethod
    def of(cls, descriptor: int, size: int | None = None, *, base: Plain | None = None) -> Plain:
        """Return the image in an open file; of the file's size unless it is said."""
        length = os.fstat(descriptor).st_size
        whole = length if size is None else size
        return cls(descriptor=descriptor, size=whole, length=min(length, whole), base=base)

    def read(self, start: int, end: int) -> bytes:
        """Return a part of it."""
        inside = min(end, self.length)
        piece = extents.read_all(self.descriptor, start, inside) if start < inside else b""
        return piece.ljust(end - start, b"\0")

    def data(self) -> Iterator[Span]:
        """Yield what is no hole in its file."""
        for start, end in extents.data_ranges(self.descriptor, self.length):
            yield Span(start, end)

    def written(self) -> Iterator[Span]:
        """Yield what is no hole in it, or none in its base."""
        return union(self.data(), self.base.data()) if self.base else self.data()


@attrs.frozen(kw_only=True)
class Overlaid:
    """A base under its exceptions.

    Attributes:
        base: what is below; as large as the disk, with zeros after its file.
        store: the CoW file, open for reading.
        changes: what is in it.
    """

    base: Plain
    store: int
    changes: Changes
    _starts: list[int] = attrs.field(init=False, repr=False, eq=False)

    @_starts.default
    def _starts_of_runs(self) -> list[int]:
        return [run.old for run in self.changes.runs]

    @property
    def size(self) -> int:
        """As large as its base."""
        return self.base.size

    def read(self, start: int, end: int) -> bytes:
        """Return a part of it."""
        parts = list(self._changed(start, end))
        if len(parts) == 1 and parts[0][0] == start and len(parts[0][1]) == end - start:
            return parts[0][1]
        whole = bytearray(self.base.read(start, end))
        for at, piece in parts:
            whole[at - start : at - start + len(piece)] = piece
        return bytes(whole)

    def data(self) -> Iterator[Span]:
        """Yield what the base has, and what was written over it."""
        return union(self.base.data(), self.written())

    def written(self) -> Iterator[Span]:
        """Yield what is in the store."""
        return iter(self.changes.spans(self.size))

    def _changed(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield what the store has of a part of the disk, as (where on the disk, bytes)."""
        chunk, runs = self.changes.chunk_bytes, self.changes.runs
        index = max(0, bisect.bisect_right(self._starts, start // chunk) - 1)
        while index < len(runs) and runs[index].old * chunk < end:
            run = runs[index]
            first, last = max(start, run.old * chunk), min(end, (run.old + run.length) * chunk)
            if first < last:
                shift = (run.new - run.old) * chunk
                yield first, extents.read_all(self.store, first + shift, last + shift)
            index += 1

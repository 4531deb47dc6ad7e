"""The exceptions of a store as runs, in the order of the disk: which chunks of it are where.

Runs cost less than exceptions: a guest mostly writes what follows what it wrote before. In the
worst case, single chunks far apart, each costs about 200 bytes.
May be imported by the rest of `content` and tests.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import attrs

from reconciler.content.spans import Span
from reconciler.store import reader
from statemachine.units import CHUNK_BYTES, Bytes

NO_STORE_CHUNK: Final = CHUNK_BYTES
"""The chunk size of a store that nobody has written to yet."""


class Run(NamedTuple):
    """`length` chunks of the disk from `old` on are in the store from `new` on."""

    old: int
    new: int
    length: int


@attrs.frozen(kw_only=True)
class Changes:
    """All changes of a disk.

    Attributes:
        chunk_bytes: the size of a chunk.
        runs: in the order of the disk; no chunk of the disk is in two of them.
    """

    chunk_bytes: int
    runs: tuple[Run, ...]

    @property
    def chunks(self) -> int:
        """How many chunks of the disk are in the store."""
        return sum(run.length for run in self.runs)

    def spans(self, size: int) -> list[Span]:
        """Return what has changed in bytes of a disk of this size, touching spans joined."""
        joined: list[Span] = []
        for run in self.runs:
            start = run.old * self.chunk_bytes
            end = min(size, (run.old + run.length) * self.chunk_bytes)
            if joined and joined[-1].end == start:
                joined[-1] = Span(joined[-1].start, end)
            else:
                joined.append(Span(start, end))
        return joined


def read_changes(descriptor: int, *, disk: Bytes) -> Changes:
    """Read the changes out of an open CoW file.

    Args:
        descriptor: open for reading.
        disk: the size of the disk.

    Raises:
        StoreError: it is no exception store, or a damaged one; nothing of it is to be used.
    """
    header = reader.read_header(descriptor)
    if header is None:
        return Changes(chunk_bytes=NO_STORE_CHUNK, runs=())
    runs: list[Run] = []
    last = Run(-1, -1, 0)
    found = reader.exceptions(descriptor, header, size=reader.file_size(descriptor), disk=disk)
    for each in found:
        if each.old == last.old + last.length and each.new == last.new + last.length:
            last = Run(last.old, last.new, last.length + 1)
            runs[-1] = last
        else:
            last = Run(each.old, each.new, 1)
            runs.append(last)
    runs.sort()
    return Changes(chunk_bytes=header.chunk_bytes, runs=tuple(runs))

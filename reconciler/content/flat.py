"""Writing a disk's content into a new file: sparse, zeros as holes, and its digest.

A base that can be shared (reflink) is, and only what was written over it is copied. Else what is
no hole is copied in one pass, in the order of the disk. Raises OSError.
May be imported by copying and tests.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from reconciler.content.image import Image, Overlaid, Plain
from reconciler.content.spans import total
from reconciler.kernel import extents
from reconciler.kernel.images import sha256_of
from reconciler.kernel.port import CloneMethod

Tell = Callable[[int, int], None]
"""Is told how many bytes are done, of how many."""


def untold(_done: int, _total: int) -> None:
    """Tell nobody."""


def unlimited(_needed: int) -> None:
    """There is room enough."""


def write(
    image: Image,
    target: int,
    tell: Tell = untold,
    *,
    room: Callable[[int], None] = unlimited,
) -> CloneMethod:
    """Write an image into an empty open file; returns how its base got there.

    Args:
        image: what to write.
        target: open for reading and writing.
        tell: is told how far it is.
        room: is told how many bytes are about to be written, and raises if there is no room.
    """
    below = image.base if isinstance(image, Overlaid) else image
    if isinstance(below, Plain) and extents.reflink(below.descriptor, target):
        os.ftruncate(target, image.size)
        if isinstance(image, Overlaid):
            room(total(image.written()))
            _lay_over(image, target, tell)
        return CloneMethod.REFLINK
    spans = list(image.data())
    done, needed = 0, total(spans)
    room(needed)
    for span in spans:
        for start, end in extents.pieces(*span):
            extents.write_sparse(target, image.read(start, end), start)
            done += end - start
            tell(done, needed)
    os.ftruncate(target, image.size)
    return CloneMethod.SPARSE_COPY


def digest(descriptor: int, tell: Tell = untold) -> str:
    """Return the SHA-256 of an open file in hex; its holes cost no reading."""
    return sha256_of(descriptor, tell)


def _lay_over(image: Overlaid, target: int, tell: Tell) -> None:
    """Bring what is in the store over a base that is there; zeros become holes.

    Blocks are shared with the store if it is on the same file system: then nothing is written but
    the file system's own notes, and fsync has nothing to wait for.
    """
    chunk, can_share = image.changes.chunk_bytes, True
    done, needed = 0, total(image.written())
    for run in image.changes.runs:
        shift = (run.new - run.old) * chunk
        last = min(image.size, (run.old + run.length) * chunk)
        for start, end in extents.pieces(run.old * chunk, last):

            def shared(begin: int, stop: int, at: int = start, shift: int = shift) -> bool:
                nonlocal can_share
                if can_share:
                    place, length = at + begin, stop - begin
                    can_share = extents.share(image.store, target, place + shift, place, length)
                return can_share

            extents.overwrite(target, image.read(start, end), start, shared=shared)
            done += end - start
            tell(done, needed)

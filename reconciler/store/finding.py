"""What can be wrong with an exception store, and where in the file.

Pure. May be imported by the rest of `store`, everything above the kernel layer, and tests.
"""

from __future__ import annotations

import enum

import attrs

from reconciler.store.layout import StoreError


class FindingKind(enum.StrEnum):
    """What can be wrong with a store."""

    FOREIGN = "foreign"
    """There is no header of a store, so there is nothing to check."""
    EMPTY = "empty"
    """Zeros, where a disk that has been live must have the header of a store."""
    INVALID = "invalid"
    """The kernel has given the snapshot up: I/O errors for ever."""
    TRUNCATED = "truncated"
    """The file ends before the store does: a metadata chunk is not wholly in it."""
    BEYOND_STORE = "beyond-store"
    """An exception's data would lie past the end of the file."""
    BEYOND_DISK = "beyond-disk"
    """An exception is for a chunk past the end of the disk."""
    IN_METADATA = "in-metadata"
    """An exception's data would lie in the header or in a metadata chunk."""
    OLD_TWICE = "old-twice"
    """Two exceptions are for one chunk of the disk."""
    NEW_TWICE = "new-twice"
    """Two exceptions have their data in one chunk of the store."""
    AFTER_END = "after-end"
    """Something stands behind the end of the store, where the kernel writes zeros."""


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that is wrong; `offset` is that of the bytes which say so."""

    kind: FindingKind
    offset: int
    message: str

    def __str__(self) -> str:
        """Print in one line: kind, offset, what was found and what is allowed."""
        return f"{self.kind} at byte {self.offset}: {self.message}"


class StoreDamaged(StoreError):
    """The store is one, and a number in it is not possible; `finding` is the first such."""

    def __init__(self, finding: Finding) -> None:
        hint = "restore the disk from a copy; no tool can tell what the number was"
        super().__init__(f"damaged exception store: {finding}", kind="cow-damaged", hint=hint)
        self.finding = finding

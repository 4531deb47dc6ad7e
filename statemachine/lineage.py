"""Copies of a disk's own file: which disk it was forked off, and which points of it are kept.

Pure values; may be imported by diskfacts, projection and everything in `reconciler`.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from statemachine.fileidentity import FileIdentity


@attrs.frozen(kw_only=True)
class Parent:
    """The disk that another was forked off, as it was then."""

    name: str
    id: str
    generation: int
    seq: int
    """The event up to which the log spoke of it."""
    how: str
    """"reflink" or "sparse-copy"."""
    frozen_ns: int = 0
    """How long it was suspended for it; 0 if it was not."""
    point: str = ""
    """Which point of it was taken; "" for the disk as it was at the moment."""

    def __str__(self) -> str:
        """Print it as a command takes it: "sb-1", "sb-1@clean"."""
        return f"{self.name}@{self.point}" if self.point else self.name


@attrs.frozen(kw_only=True)
class Point:
    """A kept point of a disk: a copy of its own file, in a file of its own."""

    name: str
    path: str
    file: FileIdentity
    boot_id: str
    """The boot in which `file` was taken."""
    at: int
    """When it was made, UTC in ns."""
    how: str
    """"reflink" or "sparse-copy"."""


@attrs.frozen(kw_only=True)
class Rewind:
    """Somebody's word that a disk goes back to a point: its own file gives way to this copy."""

    point: str
    path: str
    """Where the copy waits until the disk is paused."""
    file: FileIdentity
    """Which file that is, and which file the disk's own will be then."""
    boot_id: str
    """The boot in which `file` was taken."""


def find(points: Iterable[Point], name: str) -> Point | None:
    """Return the point of a name."""
    return next((point for point in points if point.name == name), None)

"""Whether the loop of a disk's own file goes past the host's page cache, as its spec says.

The switch can be thrown under a live disk, so a changed spec takes effect at once, and a loop that
somebody switched by hand is put right as any other difference.
Pure; may be imported by the drivers.
"""

from __future__ import annotations

from pathlib import Path

from reconciler.actions import Action, SetDirectIo
from statemachine.observed import ObservedDisk
from statemachine.record import Record


def set_as_wanted(record: Record, observed: ObservedDisk, cow: Path) -> list[Action]:
    """Return what switches it, after the loop is there; nothing when it is as it should be."""
    loop, wanted = observed.cow_loop, record.wanted.direct_io
    is_now = loop is not None and loop.direct_io
    return [SetDirectIo(cow, wanted)] if is_now != wanted else []


def defects(record: Record, observed: ObservedDisk) -> tuple[str, ...]:
    """Name a loop that is not as the spec says."""
    loop = observed.cow_loop
    if loop is None or loop.direct_io == record.wanted.direct_io:
        return ()
    return (f"direct IO of {loop.path} is {'on' if loop.direct_io else 'off'}",)

"""What can be asked of a CoW file by its path: is it sound, and how full is it?

Nothing is written, nothing is followed: a symlink at the end of the path is refused, and a pipe
cannot make it wait. Raises StoreError for what is no exception store, and OSError.
May be imported by everything above the kernel layer, and tests.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from reconciler.store import reader
from reconciler.store.finding import Finding, StoreDamaged
from reconciler.store.layout import Header
from statemachine.observed import SnapshotStatus
from statemachine.units import CHUNK_SECTORS, Bytes, Sectors

FINDINGS_MAX: Final = 100
"""How many findings a report keeps; it counts all of them."""

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@attrs.frozen(kw_only=True)
class Report:
    """What a check found.

    Attributes:
        size: of the file.
        header: None if nothing was ever written to the disk.
        exceptions: how many of them are sound, and so how many chunks of the disk have changed.
        findings: the first ones, in the order of the file.
        findings_total: how many there are.
        status: what the kernel would show; None if it has data beyond the end of the file.
    """

    size: Bytes
    header: Header | None
    exceptions: int
    findings: tuple[Finding, ...]
    findings_total: int
    status: SnapshotStatus | None

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.findings_total == 0


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a CoW file for reading, for the length of a `with` block."""
    descriptor = os.open(path, _FLAGS)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def check(path: Path, *, disk: Bytes | None = None) -> Report:
    """Read the whole store of a CoW file and say what is wrong with it.

    Args:
        path: the CoW file.
        disk: the size of the disk, where it is known.

    Raises:
        StoreError: it has no header of a store, so there is nothing to check.
    """
    with opened(path) as descriptor:
        return check_open(descriptor, disk=disk)


def check_open(descriptor: int, *, disk: Bytes | None = None) -> Report:
    """Do what `check` does with a file that is open for reading."""
    size = reader.file_size(descriptor)
    header = reader.read_header(descriptor)
    sound = 0
    findings: list[Finding] = []
    total = 0
    if header is not None:
        for found in reader.scan(descriptor, header, size=size, disk=disk):
            if not isinstance(found, Finding):
                sound += 1
                continue
            total += 1
            if total <= FINDINGS_MAX:
                findings.append(found)
    return Report(
        size=size,
        header=header,
        exceptions=sound,
        findings=tuple(findings),
        findings_total=total,
        status=_status_if_any(descriptor, header, size),
    )


def usage(path: Path) -> SnapshotStatus:
    """Return how full a CoW file is, in the kernel's words and numbers, without the kernel.

    A file that nobody has written to is shown as it would be when it first goes live.

    Raises:
        StoreError: it is no exception store, or a number in it is not possible.
    """
    with opened(path) as descriptor:
        size = reader.file_size(descriptor)
        return _status(descriptor, reader.read_header(descriptor), size)


def _status_if_any(descriptor: int, header: Header | None, size: Bytes) -> SnapshotStatus | None:
    try:
        return _status(descriptor, header, size)
    except StoreDamaged:
        return None


def _status(descriptor: int, header: Header | None, size: Bytes) -> SnapshotStatus:
    if header is None:
        fresh = Header(valid=True, chunk=Sectors(CHUNK_SECTORS))
        return fresh.status(last_new=0, area=0, size=size)
    return reader.status(descriptor, header, size=size)

"""The reader of the exception store against any file, and against a simpler reader."""

from __future__ import annotations

import functools
import os
import struct

from reconciler.store import files, reader
from reconciler.store.finding import Finding, FindingKind, StoreDamaged
from reconciler.store.layout import Header, StoreError, pack_header
from reconciler.store.reader import CopiedChunk
from statemachine.units import Bytes

DISK = Bytes(64 * 4096)


def read_store(data: bytes) -> None:
    """Check a file with this content, with and without the disk's size; files grow to 64 KiB."""
    descriptor = memory_file()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)
    if data[-1:] == b"+":  # a sparse file: the rest of it are holes
        os.ftruncate(descriptor, max(len(data), 65536))
    try:
        report = files.check_open(descriptor, disk=DISK)
    except StoreError:
        return
    header = report.header
    assert report.findings_total >= len(report.findings)
    inside = [each for each in report.findings if each.kind is not FindingKind.TRUNCATED]
    assert all(0 <= each.offset < report.size.count for each in inside)
    if header is None:
        assert report.exceptions == 0
        return
    assert pack_header(header) == data[:16]
    raw = os.pread(descriptor, report.size.count, 0)
    if report.sound:
        assert report.exceptions == len(simply_read(header, raw))
    agrees(descriptor, header, report)


def agrees(descriptor: int, header: Header, report: files.Report) -> None:
    """Check that the other ways to read the store say what the report says."""
    first: Finding | None = None
    sound: list[CopiedChunk] = []
    try:
        sound.extend(reader.exceptions(descriptor, header, size=report.size, disk=DISK))
    except StoreDamaged as error:
        first = error.finding
    assert first == (report.findings[0] if report.findings else None)
    assert len(sound) <= report.exceptions
    status = None
    try:
        status = reader.status(descriptor, header, size=report.size)
    except StoreDamaged as error:
        first = error.finding
    assert status == report.status
    assert status is not None or first is not None


def simply_read(header: Header, raw: bytes) -> dict[int, int]:
    """Read a sound store without any care."""
    found: dict[int, int] = {}
    at = header.chunk_bytes
    while True:
        for index in range(header.pairs_per_area):
            old, new = struct.unpack_from("<2Q", raw, at + index * 16)
            if new == 0:
                return found
            found[old] = new
        at += (header.pairs_per_area + 1) * header.chunk_bytes


@functools.cache
def memory_file() -> int:
    """Return a file of this process's own, in memory."""
    return os.memfd_create("byre-fuzz")

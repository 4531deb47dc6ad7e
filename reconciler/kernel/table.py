"""The text that device-mapper's snapshot target speaks: table and status lines, both ways.

Pure: strings in, values out; no system call. The two value types live in
`statemachine.observed`. Whatever is not exactly what the kernel prints for a plain snapshot is a
`TableError`, never a guess.

Source: snapshot_status() in drivers/md/dm-snap.c and persistent_status() in
drivers/md/dm-snap-persistent.c; Documentation/admin-guide/device-mapper/snapshot.rst.
May be imported by the kernel layer and by tests.
"""

from __future__ import annotations

import re
from typing import Final

from statemachine.observed import DeviceNumber, SnapshotHealth, SnapshotStatus, SnapshotTable
from statemachine.units import Sectors, UnitError

TARGET: Final = "snapshot"
"""The name of the target type in a dm table."""

_STORES: Final = frozenset({"P", "PO", "N"})
_DISCARDS: Final = " 1 discard_zeroes_cow"
"""The one optional feature that byre asks for, if a spec does (target 1.16, Linux 5.3)."""
_TABLE = re.compile(
    r"([0-9]{1,4}:[0-9]{1,7}) ([0-9]{1,4}:[0-9]{1,7}) (P|PO|N) ([0-9]{1,10})"
    rf"({_DISCARDS})?"
)
_USAGE = re.compile(r"([0-9]{1,20})/([0-9]{1,20}) ([0-9]{1,20})")
_WORDS: Final = {
    "Invalid": SnapshotHealth.INVALID,
    "Overflow": SnapshotHealth.OVERFLOW,
    "Merge failed": SnapshotHealth.MERGE_FAILED,
    "Unknown": SnapshotHealth.UNKNOWN,
}


class TableError(ValueError):
    """A table or status line is not one of a plain snapshot target."""


def format_table(table: SnapshotTable) -> str:
    """Print the parameters of a snapshot target: "7:0 7:1 P 8".

    Raises:
        TableError: the exception store is none of P, PO and N, or the chunk is no power of two.
    """
    chunk = table.chunk.count
    if table.persistent not in _STORES:
        msg = f"exception store {table.persistent!r} is none of {', '.join(sorted(_STORES))}"
        raise TableError(msg)
    if chunk <= 0 or chunk & (chunk - 1):
        msg = f"chunk of {chunk} sectors: the kernel wants a power of two"
        raise TableError(msg)
    features = _DISCARDS if table.discards else ""
    return f"{table.origin} {table.cow} {table.persistent} {chunk}{features}"


def parse_table(length: Sectors, text: str) -> SnapshotTable:
    """Read the parameters that DM_STATUS_TABLE_FLAG gives for a snapshot target.

    Args:
        length: the target's length, which is the whole device's.
        text: "7:0 7:1 P 8", or that and "1 discard_zeroes_cow". Any other optional feature is an
            error: byre never asks for one.

    Raises:
        TableError: the text is something else.
    """
    match = _TABLE.fullmatch(text.strip())
    if match is None:
        msg = f"{text!r} is not the table of a plain snapshot (ORIGIN COW P|PO|N CHUNK)"
        raise TableError(msg)
    origin, cow, store, chunk, discards = match.groups()
    return SnapshotTable(
        length=length,
        origin=DeviceNumber.parse(origin),
        cow=DeviceNumber.parse(cow),
        persistent=store,
        chunk=Sectors(int(chunk)),
        discards=discards is not None,
    )


def format_status(status: SnapshotStatus) -> str:
    """Print a status as the kernel does: "16/131600 16", or the word of its ill health."""
    for word, health in _WORDS.items():
        if status.health is health:
            return word
    return f"{status.used.count}/{status.total.count} {status.metadata.count}"


def parse_status(text: str) -> SnapshotStatus:
    """Read a status line of a snapshot target; all numbers are sectors of the CoW device.

    Args:
        text: "<allocated>/<total> <metadata>", "Invalid", "Overflow", "Merge failed" or
            "Unknown" (an exception store that cannot say).

    The numbers are taken as they are: a store that is nearly full can report one chunk more
    than there is, as the next free chunk skips metadata (skip_metadata() in the kernel).

    Raises:
        TableError: the text is something else, or a number no device can have.
    """
    line = text.strip()
    if line in _WORDS:
        return SnapshotStatus(health=_WORDS[line])
    match = _USAGE.fullmatch(line)
    if match is None:
        msg = f"{text!r} is not a snapshot status (USED/TOTAL METADATA or a word)"
        raise TableError(msg)
    try:
        used, total, metadata = (Sectors(int(number)) for number in match.groups())
    except UnitError as error:
        msg = f"{text!r} is not a snapshot status: {error}"
        raise TableError(msg) from error
    return SnapshotStatus(health=SnapshotHealth.VALID, used=used, total=total, metadata=metadata)

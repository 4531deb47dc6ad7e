"""The readers of the kernel's texts against any text: dm tables and status, mounts, swaps."""

from __future__ import annotations

import re

from reconciler.kernel.holders import mount_points, swap_paths
from reconciler.kernel.table import (
    TableError,
    format_status,
    format_table,
    parse_status,
    parse_table,
)
from statemachine.observed import DeviceNumber
from statemachine.units import Sectors

LENGTH = Sectors(2048)
DEVICE = DeviceNumber(7, 1)


def read_snapshot_texts(data: bytes) -> None:
    """Read a text as a table and as a status; what is taken is printed and read back."""
    text = data.decode("utf-8", "replace")
    try:
        table = parse_table(LENGTH, text)
    except TableError:
        pass
    else:
        try:
            assert parse_table(LENGTH, format_table(table)) == table
        except TableError:
            # A chunk that the kernel would never load; the table is shown, and never printed.
            chunk = table.chunk.count
            assert chunk == 0 or chunk & (chunk - 1)
    try:
        status = parse_status(text)
    except TableError:
        return
    assert parse_status(format_status(status)) == status


def read_mounts(data: bytes) -> None:
    """Read a text as mountinfo and as the table of swaps, whatever is in it."""
    text = data.decode("utf-8", "replace")
    lines = text.count("\n") + 1
    assert len(list(mount_points(text, DEVICE))) <= lines
    assert len(list(swap_paths(text))) <= lines
    at = "/" + text.replace("\0", "")
    line = f"36 35 {DEVICE} / {escaped(at)} rw - ext4 /dev/loop1 rw\n"
    assert list(mount_points(line, DEVICE)) == [at]
    assert list(swap_paths(f"Filename Type\n{escaped(at)} file 8 0 -2\n")) == [at]


def escaped(path: str) -> str:
    r"""Escape as seq_escape() in fs/proc_namespace.c does: space, tab, newline, "\" and "#"."""
    return re.sub(r"[ \t\n\\#]", lambda match: f"\\{ord(match[0]):03o}", path)

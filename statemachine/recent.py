"""The records that were read or written last, by their texts in the table `disks`.

A disk that is worked on is read at each step, and by each commit: the same text is the same record,
and is read once, or never where this process wrote it. Safe for several threads.
May be imported by diskrows only.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from statemachine.record import Record

KEPT: Final = 256
"""For the disks that are worked on at one time, not for all that there are."""

_lock = threading.Lock()
_records: OrderedDict[str, Record] = OrderedDict()


def find(text: str) -> Record | None:
    """Return the record of a text, None if it is not one of the last."""
    with _lock:
        return _records.get(text)


def keep(text: str, record: Record) -> None:
    """Keep a record with its text; the oldest one goes."""
    with _lock:
        _records[text] = record
        if len(_records) > KEPT:
            _records.popitem(last=False)

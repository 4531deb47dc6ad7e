"""How often Python looks for garbage while a reconciler is at work: seldom, and among what is new.

Nearly all of what a pass makes goes by its reference counts. What stays are records, and a full
collection walks over all of them and over all that was imported: with thousands of disks that took
a seventh of the time of a transition. So what is there at the start is left out, and the others are
looked at a tenth as often; cycles of objects are still found.

May be imported by daemon.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

_THRESHOLDS: Final = (10_000, 10, 10)
"""New objects for a collection of the young ones, and so many of each for one of the older; Python
begins with 700."""


@contextlib.contextmanager
def seldom_collected() -> Iterator[None]:
    """Have garbage looked for seldom, for the length of a `with` block, in the whole process."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()

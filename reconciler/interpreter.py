"""What Python itself does while a reconciler is at work: it looks for garbage and changes threads.

Garbage: nearly all of what a pass makes goes by its reference counts. What stays are records, and a
full collection walks over all of them and over all that was imported: with thousands of disks that
took a seventh of the time of a transition. So what is there at the start is left out, and the rest
is looked at a tenth as often; cycles of objects are still found.

Threads: one runs at a time, until it waits or another one has asked for its place for 5 ms. Where
Python is slow, as in a virtual machine without hardware's help, a worker is then interrupted many
times in one pass, and to change threads takes as long as a good part of it. All of them soon wait
for the kernel anyway, so they are asked later.

May be imported by daemon.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from typing import Final

_THRESHOLDS: Final = (10_000, 10, 10)
"""New objects for a collection of the young ones, and so many of each for one of the older; Python
begins with 700."""
SWITCH_S: Final = 0.02
"""After how long a thread that only computes makes place for another one."""


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """Have Python do both seldom, for the length of a `with` block, in the whole process."""
    thresholds, switch_s = gc.get_threshold(), sys.getswitchinterval()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(switch_s)
        gc.set_threshold(*thresholds)
        gc.unfreeze()

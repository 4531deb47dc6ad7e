"""What a disk at rest may be woken for: nobody has written to it for long.

Asks the kernel who has an idle disk open; changes nothing and appends nothing.
May be imported by reconcile and daemon.
"""

from __future__ import annotations

from typing import Final

from reconciler import busy, lapse
from reconciler.kernel.port import Kernel
from statemachine import payloads
from statemachine.observed import ObservedDisk
from statemachine.payloads import DiskDeclared
from statemachine.record import Record

_NS: Final = 1_000_000_000


def is_timed(record: Record) -> bool:
    """Tell whether a pass, which says when to look again, must look at a disk that is at rest."""
    return record.wanted.lifetime.idle_pause_s is not None


def look(
    kernel: Kernel, record: Record, observed: ObservedDisk, now_ns: int
) -> tuple[DiskDeclared | None, float | None]:
    """Return what is wanted of a disk that is idle by now, or in how many seconds to look again.

    One that somebody has open is not idle: it cannot be paused, and may be written to at any
    moment. It is looked at again after the same time.
    """
    idle_at = lapse.idle_at(record, observed)
    if idle_at is not None and idle_at <= now_ns:
        if busy.look(kernel, record, observed, None) is None:
            return lapse.declared(record, payloads.IDLE), None
        idle_at = lapse.in_use_until(record, now_ns)
    return None, None if idle_at is None else min((idle_at - now_ns) / _NS, lapse.LOOK_S_MAX)

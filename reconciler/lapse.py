"""When a disk's time is over, and what is wanted of it then.

Both ways to lapse are in the record and in the disk's own file, so a restart forgets neither:
`expires_at` comes from what was declared, and the last write from the file's mtime, which the
kernel moves with each write through a loop device. Pure. May be imported by reconcile, declare and
the commands that only look.
"""

from __future__ import annotations

from typing import Final

import attrs

from statemachine import payloads
from statemachine.errors import RefusedError
from statemachine.lifetime import OnExpiry, moment_text
from statemachine.machine import LIVE, Desired, State
from statemachine.observed import ObservedDisk
from statemachine.payloads import DiskDeclared
from statemachine.record import Record
from statemachine.spec import DiskSpec

LOOK_S_MAX: Final = 86_400.0
"""A disk with an end is looked at once a day in any case: clocks are set, and no wait is longer."""
_NS: Final = 1_000_000_000


def is_over(record: Record, now_ns: int) -> bool:
    """Tell whether a disk's time is over, whatever is wanted of it."""
    return record.expires_at is not None and record.expires_at <= now_ns


def is_expired(record: Record, now_ns: int) -> bool:
    """Tell whether a disk's time is over and nobody has acted upon that.

    What was wanted before an older log was put back is not acted upon, its end neither.
    """
    if not is_over(record, now_ns):
        return False  # first, as nearly all are
    is_acted_upon = record.desired in (_then(record.wanted), Desired.REMOVED)
    return not is_acted_upon and record.held is None


def idle_at(record: Record, observed: ObservedDisk) -> int | None:
    """Return from when on a live disk counts as idle; None for one that never does.

    It counts from the last write, or from the last event of the disk if that was later.
    """
    idle_s, cow = record.wanted.lifetime.idle_pause_s, observed.cow
    is_at_rest = record.state in LIVE and record.desired is Desired.LIVE and not record.frozen
    if idle_s is None or cow is None or not is_at_rest:
        return None
    since = max(record.updated_at, cow.mtime_ns)
    return since + int(idle_s * _NS)


def left_s(record: Record, now_ns: int, other_s: float | None) -> float | None:
    """Return in how many seconds to look at a disk: when its time is over, or earlier (`other_s`).

    None when neither comes.
    """
    if record.expires_at is None or record.expires_at <= now_ns:
        return other_s
    end_s = min((record.expires_at - now_ns) / _NS, LOOK_S_MAX)
    return end_s if other_s is None else min(end_s, other_s)


def in_use_until(record: Record, now_ns: int) -> int:
    """Return when to look again at a disk without writes that somebody has open."""
    return now_ns + int((record.wanted.lifetime.idle_pause_s or 0.0) * _NS)


def ended(spec: DiskSpec, record: Record | None, now_ns: int) -> str:
    """Return why a wish that stands as it stood asks for nothing any more; "" if it does.

    It has lapsed; or its time is over, and there is no disk.
    """
    is_there = record is not None and record.state is not State.REMOVED
    if not is_there and ends_before(spec, now_ns):
        return f"its time was over at {moment_text(spec.lifetime.expires_at or 0)}"
    if record is None or record.held is not None:
        return ""
    is_same = spec.to_data() == {**record.spec, "state": spec.state.value}
    if is_same and is_over(record, now_ns):
        return f"its time was over at {moment_text(record.expires_at or 0)}"
    return "it was paused, as nobody wrote to it" if is_same and record.lapsed else ""


def ends_before(spec: DiskSpec, now_ns: int) -> bool:
    """Tell whether a spec names a time that is over."""
    expires_at = spec.lifetime.expires_at
    return expires_at is not None and expires_at <= now_ns


def renewed(record: Record, now_ns: int) -> tuple[str, ...]:
    """Return which fields a wish to have the disk back says anew: its time begins again."""
    return ("ttl",) if is_over(record, now_ns) else ()


def refuse_ended(record: Record, now_ns: int) -> None:
    """Refuse to bring a disk back whose spec names a time that is over.

    Raises:
        RefusedError: it does.
    """
    if ends_before(record.wanted, now_ns):
        msg = f"{record.name}: its time was over at {moment_text(record.expires_at or 0)}"
        raise RefusedError(msg, hint=f"`byre extend {record.name}` gives it more")


def declared(record: Record, why: str) -> DiskDeclared:
    """Return what is wanted of a disk that has lapsed, as an event of the reconciler's own."""
    spec = record.wanted
    then = Desired.PAUSED if why == payloads.IDLE else _then(spec)
    wanted = attrs.evolve(spec, state=then).to_data()
    return DiskDeclared(**payloads.again(record.spec, wanted), why=why)


def _then(spec: DiskSpec) -> Desired:
    """Return what is wanted of a disk whose time is over; a throwaway disk cannot be paused."""
    is_kept = spec.lifetime.on_expiry is OnExpiry.PAUSE and spec.persistent
    return Desired.PAUSED if is_kept else Desired.REMOVED

"""What a difference between the record and the kernel amounts to. Pure.

The kernel wins: a difference is an event before it is repaired. May be imported by plan.
"""

from __future__ import annotations

import attrs

from reconciler.drivers.port import Appraisal, Shape
from statemachine.machine import LIVE, State, Trigger, is_met, next_trigger
from statemachine.record import Record


@attrs.frozen(kw_only=True)
class Drift:
    """A trigger that the observation pulls, and why."""

    trigger: Trigger
    differences: tuple[str, ...]


def judge(record: Record, seen: Appraisal) -> Drift | None:
    """Compare a record without an open intent with what was seen of the disk.

    Returns:
        The drift, or None when the kernel shows what the record says, or what the next trigger
        puts right anyway. A fault is not a drift: the caller looks at `seen.fault` first.
    """
    state = record.state
    if is_behind(record, seen):
        return _drift(Trigger.FIND, "it has data that the log does not know of")
    if state in LIVE:
        return _of_live(record, seen)
    if state is State.ATTACHED:
        return _of_attached(record, seen)
    if state is State.PAUSED:
        return _of_paused(record, seen)
    return None


def is_behind(record: Record, seen: Appraisal) -> bool:
    """Tell whether the kernel is ahead of the log: an older copy of the log was put back.

    Before its first life a disk has no data, and what makes it writes its file to the log before
    it goes live. So data that the log has not heard of was made in a future that the log lost.
    """
    return record.state is State.ABSENT and seen.is_unheard_of


def _of_live(record: Record, seen: Appraisal) -> Drift | None:
    if seen.shape is not Shape.LIVE:
        trigger = Trigger.LOSE if record.wanted.persistent else Trigger.VANISH
        return _drift(trigger, f"{record.device or record.device_name} is gone")
    # What a removal or a pause takes away anyway is not put right before it. A disk that cannot get
    # to what is desired (it was wanted attached, and went live before) stays, and stays whole.
    if seen.defects and next_trigger(record.state, record.desired) is None:
        return Drift(trigger=Trigger.REPAIR, differences=seen.defects)
    return None


def _of_attached(record: Record, seen: Appraisal) -> Drift | None:
    if seen.shape is Shape.LIVE:
        return _drift(Trigger.FIND, f"{record.device_name} is live and was not made by byre")
    if seen.shape is not Shape.ATTACHED:
        return _drift(Trigger.LOSE, "the loop device of the CoW file is gone")
    wrong = (*seen.defects, *seen.leftovers)
    if wrong and is_met(record.state, record.desired):
        return Drift(trigger=Trigger.REPAIR, differences=wrong)
    return None


def _of_paused(record: Record, seen: Appraisal) -> Drift | None:
    if seen.shape is Shape.LIVE:
        return _drift(Trigger.FIND, f"{record.device_name} is live and was not made by byre")
    if not record.wanted.persistent:
        return _drift(Trigger.VANISH, f"{record.device_name} is gone")
    if seen.leftovers and is_met(record.state, record.desired):
        return Drift(trigger=Trigger.REPAIR, differences=seen.leftovers)
    return None


def _drift(trigger: Trigger, difference: str) -> Drift:
    return Drift(trigger=trigger, differences=(difference,))

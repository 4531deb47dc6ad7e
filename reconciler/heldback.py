"""What of an old wish is not done after an older copy of the log was put back. Pure.

A restored log does not know what was wanted since. A disk that it wants paused or removed may have
been made live again, one that it wants made may have been made, used and removed. So a wish that
could take something away, or put an empty disk under an old name, waits until a person says it
again (docs/decisions/0019-a-restored-log-holds-its-wishes-back.md). To bring a disk live on its own
file, which is checked to be the recorded one, takes nothing away.

May be imported by retold, plan and outcome.
"""

from __future__ import annotations

from typing import Final

from statemachine.machine import Desired, State, Trigger, is_met, next_trigger
from statemachine.record import Record

HARMLESS: Final = frozenset({Trigger.SNAPSHOT, Trigger.RESTORE})
"""What goes on with the disk's own data, if that is there."""


def is_dangerous(record: Record) -> bool:
    """Tell whether a record of an older log wants what must not be done unasked."""
    if record.state is State.REMOVED:
        return record.desired is not Desired.REMOVED
    begun = record.in_flight
    may_go_on = begun is None or begun.trigger in HARMLESS
    return record.desired is not Desired.LIVE or record.state is State.ABSENT or not may_go_on


def holds_back(record: Record, trigger: Trigger) -> bool:
    """Tell whether a trigger of the wish is to wait for a person's word."""
    is_harmless = record.desired is Desired.LIVE and trigger in HARMLESS
    return record.held is not None and not is_harmless


def waits(record: Record) -> bool:
    """Tell whether a disk is not what is desired, and the next step to it is held back."""
    if record.held is None or is_met(record.state, record.desired):
        return False
    trigger = next_trigger(record.state, record.desired)
    return trigger is None or holds_back(record, trigger)


def why(record: Record) -> str:
    """Return the sentence for whoever asks why nothing is done."""
    message = record.held.message if record.held is not None else ""
    return f"it is {record.state}, {record.desired} was desired; held back: {message}"

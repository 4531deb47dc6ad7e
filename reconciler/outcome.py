"""What a record amounts to for whoever waits: is it there, is it gone, has it failed for good.

Pure; may be imported by the API, daemon, cli and tests.
"""

from __future__ import annotations

import attrs

from reconciler import heldback
from statemachine.errors import DeadlinePassed, RefusedError
from statemachine.machine import LIVE, Desired, State
from statemachine.record import Record


@attrs.frozen(kw_only=True)
class Waited:
    """How waiting for one disk ended."""

    record: Record
    exit_code: int
    """0: it is there. 1 or 4: it failed until something changes. 5: the deadline passed."""
    message: str = ""
    hint: str = ""

    @property
    def is_there(self) -> bool:
        """Whether the disk is what was desired."""
        return self.exit_code == 0


def not_seen(record: Record) -> Waited:
    """Return the answer for a disk that could not be looked at: what the log says is not enough."""
    return Waited(
        record=record,
        exit_code=DeadlinePassed.exit_code,
        message="it could not be looked at",
        hint="the errors above say why; `byre doctor` says what is missing",
    )


def is_there(record: Record, *, boot_id: str = "") -> bool:
    """Tell whether a disk is what is desired, with nothing in flight.

    Args:
        record: the disk.
        boot_id: this boot, to tell a device of it from one that went with the last boot and was
            not looked for since; "" where only the record matters.
    """
    wanted_link = record.wanted.link if record.state in LIVE else None
    has_device = bool(record.device_number) or record.cow_loop is not None
    return (
        record.is_met
        and not (has_device and boot_id and record.boot_id != boot_id)
        and record.link == str(wanted_link or "")
        and record.in_flight is None
        and not record.sparsify_due
        and record.fault is None
        and record.frozen is None
        and record.failure is None
    )


def is_gone(record: Record) -> bool:
    """Tell whether a disk is removed, and nobody wants it back."""
    return record.state is State.REMOVED and record.desired is Desired.REMOVED


def failed_for_good(record: Record) -> Waited | None:
    """Return why a disk will not get there until something changes; None if it still may."""
    failure, fault = record.failure, record.fault
    if fault is not None and record.desired is not Desired.REMOVED:
        return Waited(
            record=record, exit_code=fault.exit_code, message=fault.message, hint=fault.hint
        )
    if heldback.waits(record):
        hint = (
            "look with `byre explain`, then say again what it should be: `byre apply`, `pause`, "
            "`restore`, `remove`; or `byre retry`, to go on with the old wish"
        )
        exit_code, message = RefusedError.exit_code, heldback.why(record)
        return Waited(record=record, exit_code=exit_code, message=message, hint=hint)
    if failure is None or failure.consequence != "permanent":
        return None
    return Waited(
        record=record, exit_code=failure.exit_code, message=failure.message, hint=failure.hint
    )

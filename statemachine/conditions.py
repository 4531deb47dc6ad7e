"""How a disk is, in the words of Kubernetes' conditions: made of the record alone.

Pure; may be imported by `reconciler`.
"""

from __future__ import annotations

import enum

import attrs

from statemachine.record import Record


class ConditionType(enum.StrEnum):
    """Every condition that can be shown; only `Ready` is always there."""

    READY = "Ready"
    FAULTED = "Faulted"
    HELD = "Held"
    FROZEN = "Frozen"
    RETRYING = "Retrying"
    BLOCKED = "Blocked"
    STALLED = "Stalled"
    LAPSED = "Lapsed"
    FELL_BACK = "FellBack"


@attrs.frozen(kw_only=True)
class Condition:
    """One condition. `status` is "True" or "False"; `since` is UTC in ns."""

    type: ConditionType
    status: str
    reason: str
    message: str
    since: int


_BY_CONSEQUENCE = {
    "transient": ConditionType.RETRYING,
    "blocked": ConditionType.BLOCKED,
    "permanent": ConditionType.STALLED,
}


def conditions(record: Record) -> tuple[Condition, ...]:
    """Return a disk's conditions, `Ready` first."""
    found = [_ready(record)]
    if record.fault is not None:
        fault = record.fault
        found.append(_true(ConditionType.FAULTED, fault.kind, fault.message, fault.since))
    if record.held is not None:
        held = record.held
        found.append(_true(ConditionType.HELD, "log-restored", held.message, held.since))
    if record.frozen is not None:
        frozen = record.frozen
        found.append(_true(ConditionType.FROZEN, frozen.cause, frozen.message, frozen.since))
    if record.failure is not None:
        failure = record.failure
        kind = _BY_CONSEQUENCE[failure.consequence]
        found.append(_true(kind, failure.kind, failure.message, failure.since))
    if record.lapsed is not None:
        cause, since = record.lapsed.cause, record.lapsed.since
        message = f"{record.desired.value} is desired since then"
        found.append(_true(ConditionType.LAPSED, cause, message, since))
    if record.driver_reason:
        found.append(
            _true(
                ConditionType.FELL_BACK,
                f"driver-{record.driver}",
                record.driver_reason,
                record.created_at,
            ),
        )
    return tuple(found)


def _ready(record: Record) -> Condition:
    at_hand = record.fault is None and record.frozen is None
    ready = record.is_met and at_hand
    return Condition(
        type=ConditionType.READY,
        status="True" if ready else "False",
        reason=record.state,
        message=f"{record.state}, {record.desired} is desired",
        since=record.state_since,
    )


def _true(kind: ConditionType, reason: str, message: str, since: int) -> Condition:
    return Condition(type=kind, status="True", reason=reason, message=message, since=since)

"""What a transition that failed leaves in the record: why, since when, and what it waits for.

Pure; may be imported by projection only.
"""

from __future__ import annotations

from statemachine.payloads import TransitionFailed
from statemachine.plight import Failure


def after(before: Failure | None, payload: TransitionFailed, *, at: int) -> Failure:
    """Return the failure of a disk after an attempt that failed.

    Args:
        before: what it suffered from until then; of the same kind, it goes on since then.
        payload: the outcome of the attempt.
        at: when, UTC in ns.
    """
    same = before is not None and (before.trigger, before.kind) == (payload.trigger, payload.kind)
    return Failure(
        trigger=payload.trigger,
        consequence=payload.consequence,
        kind=payload.kind,
        message=payload.message,
        since=before.since if same and before else at,
        hint=payload.hint,
        errno=payload.errno,
        exit_code=payload.exit_code,
        holders=payload.holders,
        retry_at=payload.retry_at,
        world=payload.world,
        overdue=payload.overdue,
    )

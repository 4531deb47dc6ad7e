"""What a declaration makes of a spec, and of its disk's end: when that is, and whether it is over.

A `ttl` counts from the declaration that says it; one that changes another field leaves the end as
it was. Pure; may be imported by projection.
"""

from __future__ import annotations

from typing import Any

from statemachine.diskfacts import LAPSES, DiskDeclared
from statemachine.lifetime import end_of
from statemachine.plight import Lapsed


def told(payload: DiskDeclared, before: dict[str, str], at: int) -> dict[str, Any]:
    """Return what a declaration changes of a record: its spec and its end; and it is tried anew.

    Args:
        payload: the declaration.
        before: the whole spec until then.
        at: when it was made, UTC in ns.
    """
    spec = payload.spec_after(before)
    changed: dict[str, Any] = {"spec": spec, "lapsed": None}
    changed |= {"attempts": 0, "failure": None, "held": None}
    if payload.why in LAPSES:
        changed["lapsed"] = Lapsed(cause=payload.why, since=at)
    if "ttl" in payload.spec or "ttl" not in spec:
        changed["expires_at"] = end_of(spec, at)
    return changed

"""What a disk is in the middle of, or suffers from: the parts of a record that come and go.

Pure values; may be imported by projection and everything in `reconciler`.
"""

from __future__ import annotations

import attrs

from statemachine.machine import State, Trigger


@attrs.frozen(kw_only=True)
class InFlight:
    """An intent without an outcome: being done just now, or left by a crash."""

    trigger: Trigger
    source: State
    target: State
    seq: int
    attempt: int


@attrs.frozen(kw_only=True)
class Failure:
    """Why the last attempt failed, and what it waits for."""

    trigger: Trigger
    consequence: str
    kind: str
    message: str
    since: int
    hint: str = ""
    errno: int | None = None
    exit_code: int = 1
    holders: tuple[str, ...] = ()
    retry_at: int | None = None
    world: str = ""
    overdue: bool = False


@attrs.frozen(kw_only=True)
class Fault:
    """Why nothing is done to this disk until a person says so."""

    kind: str
    message: str
    since: int
    hint: str = ""
    exit_code: int = 1


@attrs.frozen(kw_only=True)
class Frozen:
    """Why a live disk is suspended, and until what."""

    cause: str
    message: str
    since: int


@attrs.frozen(kw_only=True)
class Lapsed:
    """Why it was the reconciler that said last what the disk should be: "expired" or "idle"."""

    cause: str
    since: int


@attrs.frozen(kw_only=True)
class Held:
    """Why what is wanted is not acted upon: it was said before the log was restored."""

    message: str
    since: int

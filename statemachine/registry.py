"""The registered bases: what their events make of them, and which events cannot be.

The bases are few, so the event that archives older ones carries them on, and they are made again
of the newest of these and the events after it. Pure; may be imported by basetable.
"""

from __future__ import annotations

from typing import Final

import attrs

from statemachine import payloads
from statemachine.basefacts import Base
from statemachine.errors import VersionConflict
from statemachine.events import Event, EventType
from statemachine.payloads import BaseAdded, BaseRemoved, BaseVerified, DiskDeclared, LogArchived

Bases = dict[str, Base]
"""By name."""

TYPES: Final = frozenset(
    {
        EventType.BASE_ADDED,
        EventType.BASE_VERIFIED,
        EventType.BASE_REMOVED,
        EventType.LOG_ARCHIVED,
    }
)
"""The events that say something of bases."""


def check(bases: Bases, payload: object) -> None:
    """Check an event that is about to be stored.

    Raises:
        VersionConflict: somebody else added or removed the base meanwhile.
    """
    if isinstance(payload, BaseAdded) and payload.name in bases:
        raise VersionConflict(f"a base {payload.name!r} was added meanwhile")
    if isinstance(payload, BaseVerified | BaseRemoved) and payload.name not in bases:
        raise VersionConflict(f"base {payload.name!r} was removed meanwhile")
    if isinstance(payload, DiskDeclared) and payload.base_name:
        base = bases.get(payload.base_name)
        if base is None or payload.base is None or base.sha256 != payload.base.sha256:
            raise VersionConflict(f"base {payload.base_name!r} is another one by now, or none")


def apply(bases: Bases, event: Event) -> None:
    """Move bases along with an event; raises ValueError when its payload does not fit."""
    payload = payloads.read(event)
    if isinstance(payload, LogArchived):
        bases |= {base.name: base for base in payload.bases}
    elif isinstance(payload, BaseRemoved):
        bases.pop(payload.name, None)
    elif isinstance(payload, BaseVerified) and payload.name in bases:
        before = bases[payload.name]
        bases[payload.name] = attrs.evolve(before, verified_at=event.at, wrong=payload.wrong)
    elif isinstance(payload, BaseAdded):
        bases[payload.name] = _added(payload, event)


def _added(payload: BaseAdded, event: Event) -> Base:
    return Base(
        name=payload.name,
        path=payload.path,
        file=payload.file,
        sha256=payload.sha256,
        boot_id=event.boot_id,
        added_at=event.at,
        copied_from=payload.copied_from,
        method=payload.method,
        read_only=payload.read_only,
        verity=payload.verity,
        verity_why=payload.verity_why,
    )

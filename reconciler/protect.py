"""What must be done at once so that no write of a live disk can fail: grow, freeze, thaw, tell.

A snapshot that cannot store a write is lost for ever, so this comes before everything else that
a pass might do. Pure: the same view gives the same step. May be imported by plan.
"""

from __future__ import annotations

from typing import Final

import attrs

from reconciler.drivers.cow_room import CowRoom
from reconciler.drivers.port import Shape, View
from reconciler.space import SpaceLevel
from statemachine.machine import LIVE, Trigger
from statemachine.units import Bytes

HOST_SPACE: Final = "host-space"
COW_BOUND: Final = "cow-bound"
NO_SPACE: Final = "no-space"
"""The kind of the failure of a disk that must wait for room."""


@attrs.frozen(kw_only=True)
class Grow:
    """Make the CoW file and its loop this large, under the live device."""

    size: Bytes
    room: CowRoom


@attrs.frozen(kw_only=True)
class Freeze:
    """Suspend the device: its writers wait instead of losing everything."""

    cause: str
    message: str


@attrs.frozen(kw_only=True)
class Thaw:
    """Resume a frozen device."""

    message: str


@attrs.frozen(kw_only=True)
class NoteLevel:
    """Tell that the exception store filled past a level, in percent."""

    percent: int
    room: CowRoom


Protection = Grow | Freeze | Thaw | NoteLevel


def protect(view: View) -> Protection | None:
    """Return what a live disk needs before its next write; None when it needs nothing."""
    record, seen, dm = view.record, view.seen, view.observed.dm
    if record.state not in LIVE or seen.shape is not Shape.LIVE or dm is None:
        return None
    is_frozen = record.frozen is not None and dm.suspended
    if view.ground.space.level is SpaceLevel.CRITICAL:
        return None if is_frozen else Freeze(cause=HOST_SPACE, message=_no_space(view))
    room = seen.room
    if room is not None and (size := room.wanted_size()) is not None:
        return Grow(size=size, room=room)
    if room is not None and room.is_at_its_end():
        return None if is_frozen else Freeze(cause=COW_BOUND, message=_at_bound(room))
    if record.frozen is not None and _may_thaw(view):
        return Thaw(message=f"{view.ground.space}")
    return _level(view, room)


def no_room(view: View, trigger: Trigger) -> str:
    """Say why a disk must not come nearer to being live now; "" when there is room.

    A new disk needs more than the low watermark, one that only comes back the critical one: it
    would be frozen at once.
    """
    space, rises = view.ground.space, trigger in (Trigger.ATTACH, Trigger.SNAPSHOT, Trigger.RESTORE)
    if rises and view.ground.over_limit:
        return view.ground.over_limit
    if trigger is Trigger.ATTACH and view.record.cow is None:
        held = space.level is not SpaceLevel.PLENTY
    elif rises:
        held = space.level is SpaceLevel.CRITICAL
    else:
        held = False
    return f"no room on the file system of {view.ground.root.cows}: {space}" if held else ""


def _may_thaw(view: View) -> bool:
    """Tell whether there is so much room again that it will not freeze at the next write."""
    frozen, space = view.record.frozen, view.ground.space
    if frozen is None or frozen.cause != HOST_SPACE:
        return True
    return space.available >= space.thaw


def _level(view: View, room: CowRoom | None) -> NoteLevel | None:
    if room is None:
        return None
    crossed = [level for level in view.ground.cow_levels if level <= room.percent]
    if not crossed or crossed[-1] <= view.record.cow_level:
        return None
    return NoteLevel(percent=crossed[-1], room=room)


def _no_space(view: View) -> str:
    return f"the file system of {view.ground.root.cows} is nearly full: {view.ground.space}"


def _at_bound(room: CowRoom) -> str:
    return (
        f"its CoW has {room.used} of {room.capacity} used and may not be grown past {room.bound}; "
        "raise cow_max in its spec, or pause it"
    )

"""The law: every state, every trigger and every edge of a disk's life, in one table.

The table is `EDGES`; everything else in this file is read off it: the `transitions` machine that
decides, the shortest path to what is desired, and the diagram in docs/reference/states.md.
Nothing happens here but a decision: no log is written and no kernel is called in a callback.

Pure; may be imported by everything above `names`. `transitions` is imported on first use, as the
commands that only read the log do not need it.
"""

from __future__ import annotations

import enum
import functools
from collections import deque
from typing import TYPE_CHECKING, Final

import attrs

from statemachine.errors import IllegalTransition

if TYPE_CHECKING:
    from transitions import Machine


class State(enum.StrEnum):
    """What the record says a disk is."""

    ABSENT = "absent"
    ATTACHED = "attached"
    SNAPSHOTTED = "snapshotted"
    PAUSED = "paused"
    RESTORED = "restored"
    REMOVED = "removed"


class Trigger(enum.StrEnum):
    """An input of the machine."""

    ATTACH = "attach"
    SNAPSHOT = "snapshot"
    PAUSE = "pause"
    RESTORE = "restore"
    REMOVE = "remove"
    LOSE = "lose"
    VANISH = "vanish"
    FIND = "find"
    REPAIR = "repair"
    REWIND = "rewind"


class Desired(enum.StrEnum):
    """What somebody wants a disk to be. `live` is met by `snapshotted` and by `restored`."""

    ATTACHED = "attached"
    LIVE = "live"
    PAUSED = "paused"
    REMOVED = "removed"


@attrs.frozen
class Edge:
    """One row of the table; `why` is printed in the reference."""

    trigger: Trigger
    source: State
    target: State
    why: str


_ATTACH_WHY = "the CoW file is made, the origin and the CoW get their loop devices"
_PAUSE_WHY = "device, node, link and CoW loop go; the CoW file is kept"
_REMOVE_WHY = "everything goes, the CoW file too; ends the generation"
_LOSE_WHY = "drift: the kernel side vanished, the CoW file did not"
_VANISH_WHY = "drift: a throwaway disk's device vanished, and its data with it"
_FIND_WHY = "drift: somebody did it by hand"
_FIND_DATA_WHY = "drift: it has data that the log has not heard of: an older log, or an orphan"
_REWIND_WHY = "a person's word: its own file gives way to a copy of a kept point"
_REPAIR_WHY = "drift within the state: a link, a node, a suspended device, a left-over loop"

EDGES: Final = (
    Edge(Trigger.ATTACH, State.ABSENT, State.ATTACHED, _ATTACH_WHY),
    Edge(Trigger.SNAPSHOT, State.ATTACHED, State.SNAPSHOTTED, "the device goes live, first life"),
    Edge(Trigger.PAUSE, State.SNAPSHOTTED, State.PAUSED, _PAUSE_WHY),
    Edge(Trigger.PAUSE, State.RESTORED, State.PAUSED, _PAUSE_WHY),
    Edge(Trigger.RESTORE, State.PAUSED, State.RESTORED, "live again on the kept CoW file"),
    Edge(Trigger.REWIND, State.PAUSED, State.PAUSED, _REWIND_WHY),
    Edge(Trigger.REMOVE, State.ABSENT, State.REMOVED, "given up before it was attached"),
    Edge(Trigger.REMOVE, State.ATTACHED, State.REMOVED, _REMOVE_WHY),
    Edge(Trigger.REMOVE, State.SNAPSHOTTED, State.REMOVED, _REMOVE_WHY),
    Edge(Trigger.REMOVE, State.PAUSED, State.REMOVED, _REMOVE_WHY),
    Edge(Trigger.REMOVE, State.RESTORED, State.REMOVED, _REMOVE_WHY),
    Edge(Trigger.LOSE, State.ATTACHED, State.ABSENT, _LOSE_WHY),
    Edge(Trigger.LOSE, State.SNAPSHOTTED, State.PAUSED, _LOSE_WHY),
    Edge(Trigger.LOSE, State.RESTORED, State.PAUSED, _LOSE_WHY),
    Edge(Trigger.VANISH, State.SNAPSHOTTED, State.ABSENT, _VANISH_WHY),
    Edge(Trigger.VANISH, State.RESTORED, State.ABSENT, _VANISH_WHY),
    Edge(Trigger.VANISH, State.PAUSED, State.ABSENT, _VANISH_WHY),
    Edge(Trigger.FIND, State.PAUSED, State.RESTORED, _FIND_WHY),
    Edge(Trigger.FIND, State.ATTACHED, State.SNAPSHOTTED, _FIND_WHY),
    Edge(Trigger.FIND, State.ABSENT, State.PAUSED, _FIND_DATA_WHY),
    Edge(Trigger.REPAIR, State.ATTACHED, State.ATTACHED, _REPAIR_WHY),
    Edge(Trigger.REPAIR, State.SNAPSHOTTED, State.SNAPSHOTTED, _REPAIR_WHY),
    Edge(Trigger.REPAIR, State.PAUSED, State.PAUSED, _REPAIR_WHY),
    Edge(Trigger.REPAIR, State.RESTORED, State.RESTORED, _REPAIR_WHY),
)

DRIFT_TRIGGERS: Final = frozenset({Trigger.LOSE, Trigger.VANISH, Trigger.FIND, Trigger.REPAIR})
GONE: Final = frozenset({Trigger.LOSE, Trigger.VANISH})
"""Triggers that say that the kernel side is not there any more."""
"""Triggers that an observation pulls, never a wish; no path to a desired state uses them."""

LIVE: Final = frozenset({State.SNAPSHOTTED, State.RESTORED})

MEETS: Final[dict[Desired, frozenset[State]]] = {
    Desired.ATTACHED: frozenset({State.ATTACHED}),
    Desired.LIVE: LIVE,
    Desired.PAUSED: frozenset({State.PAUSED}),
    Desired.REMOVED: frozenset({State.REMOVED}),
}


class _Model:
    """A throw-away model: `transitions` 0.9.3 skips a second equal one and fails on slots."""

    def __init__(self, state: State) -> None:
        self.state = state


@functools.cache
def machine() -> Machine:
    """Build the `transitions` machine from the table; it holds no disk and no callback."""
    from transitions import Machine  # noqa: PLC0415 - see the module docstring

    return Machine(
        model=None,
        states=State,
        initial=State.ABSENT,
        auto_transitions=False,
        transitions=[
            {"trigger": edge.trigger.value, "source": edge.source, "dest": edge.target}
            for edge in EDGES
        ],
    )


def fire(disk: str, state: State, trigger: Trigger) -> State:
    """Decide where a trigger leads.

    Args:
        disk: the disk's name, for the error only.
        state: the recorded state.
        trigger: the input.

    Returns:
        The state after it.

    Raises:
        IllegalTransition: the table has no such edge.
    """
    target = _target(state, trigger)
    if target is None:
        raise IllegalTransition(disk, state, trigger, sources(trigger))
    return target


@functools.cache
def _target(state: State, trigger: Trigger) -> State | None:
    """Ask the machine once for each pair: it has no guards, so its answer never changes."""
    from transitions import MachineError  # noqa: PLC0415 - see the module docstring

    model = _Model(state)
    try:
        machine().events[trigger.value].trigger(model)
    except MachineError:
        return None
    return model.state


def sources(trigger: Trigger) -> tuple[State, ...]:
    """Return the states from which a trigger is allowed, in the order of the table."""
    return tuple(edge.source for edge in EDGES if edge.trigger is trigger)


def is_met(state: State, desired: Desired) -> bool:
    """Tell whether a disk in this state is what is desired."""
    return state in MEETS[desired]


@functools.cache
def path(state: State, desired: Desired) -> tuple[Edge, ...] | None:
    """Return the shortest way from a state to a desired one.

    Returns:
        The edges in order, empty when it is met already, None when there is no way. Of two ways
        of one length the one whose first edge stands first in the table.
    """
    ways: deque[tuple[State, tuple[Edge, ...]]] = deque([(state, ())])
    seen = {state}
    while ways:
        here, way = ways.popleft()
        if is_met(here, desired):
            return way
        for edge in EDGES:
            if (
                edge.source is here
                and edge.trigger not in DRIFT_TRIGGERS
                and edge.target not in seen
            ):
                seen.add(edge.target)
                ways.append((edge.target, (*way, edge)))
    return None


def next_trigger(state: State, desired: Desired) -> Trigger | None:
    """Return the first trigger on the shortest way; None when it is met or cannot be reached."""
    way = path(state, desired)
    return way[0].trigger if way else None

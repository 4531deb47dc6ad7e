"""What to do next about one disk. Pure: the same record and observation give the same step.

May be imported by reconcile, and by the commands that show a plan without doing it.
"""

from __future__ import annotations

import attrs

from reconciler import drift, heldback
from reconciler.actions import Action
from reconciler.drivers.port import Appraisal, Shape, View
from reconciler.protect import Protection, protect
from statemachine.machine import (
    LIVE,
    Desired,
    State,
    Trigger,
    fire,
    is_met,
    next_trigger,
    path,
)
from statemachine.record import Record


@attrs.frozen(kw_only=True)
class Rest:
    """Nothing to do, and why."""

    why: str


@attrs.frozen(kw_only=True)
class NoteDrift:
    """Record a difference; `lose` and `find` move the record, `repair` is then acted upon."""

    trigger: Trigger
    source: State
    target: State
    differences: tuple[str, ...]


@attrs.frozen(kw_only=True)
class NoteFault:
    """Record that this disk waits for a person's word."""

    kind: str
    message: str
    hint: str
    exit_code: int


@attrs.frozen(kw_only=True)
class NextGeneration:
    """The name is wanted again after its disk was removed."""


@attrs.frozen(kw_only=True)
class Move:
    """A transition: intent, these actions, outcome."""

    trigger: Trigger
    source: State
    target: State
    actions: tuple[Action, ...]
    why: str
    resumes: int | None = None


Step = Rest | NoteDrift | NoteFault | NextGeneration | Protection | Move


def decide(view: View) -> Step:
    """Return the one next step for a disk.

    In this order: finish what was begun, respect a fault, protect what is live, note what
    differs, then take the first edge of the shortest path to what is desired.
    """
    record = view.record
    if record.in_flight is not None and not drift.is_behind(record, view.seen):
        in_flight = record.in_flight
        return _spared(view, in_flight.trigger) or _resume(view, in_flight.trigger, in_flight.seq)
    if record.state is State.REMOVED:
        if record.desired is Desired.REMOVED:
            return Rest(why="it is removed")
        return Rest(why=heldback.why(record)) if record.held else NextGeneration()
    return _fault(view) or protect(view) or _drift(view) or _towards_desired(view)


def repair(view: View, differences: tuple[str, ...]) -> Move:
    """Return the transition that puts a noted drift within a state right."""
    return _move(view, Trigger.REPAIR, why="; ".join(differences))


def outlook(record: Record) -> tuple[Trigger, ...]:
    """Return the triggers still to come on the way to what is desired."""
    if record.state is State.REMOVED and record.desired is not Desired.REMOVED:
        return tuple(edge.trigger for edge in path(State.ABSENT, record.desired) or ())
    state = record.state
    first: tuple[Trigger, ...] = ()
    if record.rewind is not None and state in (*LIVE, State.PAUSED):
        pause = (Trigger.PAUSE,) if state in LIVE else ()
        state, first = State.PAUSED, (*pause, Trigger.REWIND)
    return (*first, *(edge.trigger for edge in path(state, record.desired) or ()))


def _fault(view: View) -> Step | None:
    record, seen = view.record, view.seen
    # To remove it, or to go back to a point, takes nothing from what is damaged.
    if (record.desired is Desired.REMOVED or record.rewind is not None) and record.held is None:
        return None
    if record.fault is not None:
        return Rest(why=f"it is faulted: {record.fault.message}")
    return _note_fault(seen) if seen.fault else None


def _spared(view: View, trigger: Trigger) -> NoteFault | None:
    """Let a pause that was begun rest while its file is gone: the live device is all there is."""
    is_live = view.seen.shape is Shape.LIVE
    spared = trigger is Trigger.PAUSE and is_live and view.seen.fault
    return _note_fault(view.seen) if spared else None


def _note_fault(seen: Appraisal) -> NoteFault:
    return NoteFault(
        kind=seen.fault_kind,
        message=seen.fault,
        hint=seen.fault_hint,
        exit_code=seen.fault_exit_code,
    )


def _drift(view: View) -> NoteDrift | None:
    record = view.record
    # A faulted disk gets here on its way to being removed; what it seems to be is not believed.
    found = None if view.seen.fault else drift.judge(record, view.seen)
    if found is None or (found.trigger is Trigger.REPAIR and _is_spared(record)):
        return None
    return NoteDrift(
        trigger=found.trigger,
        source=record.state,
        target=fire(record.name, record.state, found.trigger),
        differences=found.differences,
    )


def _towards_desired(view: View) -> Step:
    record = view.record
    back = _back_to_a_point(view)
    if back is not None:
        return back
    if is_met(record.state, record.desired):
        if record.failure is not None and not _is_spared(record):
            return _move(view, Trigger.REPAIR, why="the last try failed, and all looks well now")
        frozen = f", and frozen: {record.frozen.message}" if record.frozen else ", as desired"
        return Rest(why=f"it is {record.state}{frozen}")
    trigger = next_trigger(record.state, record.desired)
    if trigger is None:
        return Rest(why=f"no way leads from {record.state} to {record.desired}")
    if heldback.holds_back(record, trigger):
        return Rest(why=heldback.why(record))
    return _move(view, trigger, why=f"it is {record.state}, {record.desired} is desired")


def _back_to_a_point(view: View) -> Move | None:
    """Return the next step on the way back to a point; None where nobody wants that."""
    record = view.record
    if record.rewind is None or record.desired is Desired.REMOVED:
        return None
    why = f"it goes back to point {record.rewind.point}"
    if record.state in LIVE:
        return _move(view, Trigger.PAUSE, why=why)
    return _move(view, Trigger.REWIND, why=why) if record.state is State.PAUSED else None


def _is_spared(record: Record) -> bool:
    """Tell whether a repair would take away what the log may only not know of any more."""
    return record.held is not None and record.state not in LIVE


def _resume(view: View, trigger: Trigger, seq: int) -> Move:
    move = _move(view, trigger, why=f"event {seq} began it and nothing tells of its end")
    return attrs.evolve(move, resumes=seq)


def _move(view: View, trigger: Trigger, *, why: str) -> Move:
    record = view.record
    return Move(
        trigger=trigger,
        source=record.state,
        target=fire(record.name, record.state, trigger),
        actions=view.driver.plan(trigger, record, view.observed, view.ground),
        why=why,
    )

"""A pass goes on after a transition, on what its own actions have just verified.

Each action looks, acts and looks again. What they found is what a look right after them would
find, so a pass that goes on at once does not ask the kernel for it a second time: from attached it
goes on to live, with the outcome and the next intent in one commit. Where it comes to rest, the
look is made a little later (`LOOK_AFTER_S`), when the kernel's own notices of the change are in,
and so nobody waits for it.

Pure; may be imported by reconcile.
"""

from __future__ import annotations

from typing import Final

import attrs

from reconciler import plan
from reconciler.actions import Scene
from reconciler.drivers.port import Appraisal, Shape, View
from reconciler.kernel.port import CowHeader
from statemachine.machine import LIVE, State
from statemachine.record import Record

LOOK_AFTER_S: Final = 0.1
"""How long after a transition a disk is looked at once more: with what the kernel tells of it."""

_SHAPES: Final = dict.fromkeys(LIVE, Shape.LIVE) | {
    State.ATTACHED: Shape.ATTACHED,
    State.PAUSED: Shape.STORED,
    State.REMOVED: Shape.NOTHING,
}


def next_move(view: View, scene: Scene, record: Record) -> tuple[View, plan.Move] | None:
    """Return the move that follows at once on one that worked, and the view it was decided upon.

    Only from attached: there a disk is nothing but what the actions made or checked. From all
    else the way leads on by a look.

    Args:
        view: before the move.
        scene: what its actions found and made.
        record: after the move.
    """
    if record.state is not State.ATTACHED:
        return None
    after = _view_after(view, scene, record)
    step = plan.decide(after)
    return (after, step) if isinstance(step, plan.Move) else None


def rests(view: View, scene: Scene, record: Record) -> str:
    """Say why nothing is left to do after a move that worked; "" when something is."""
    step = plan.decide(_view_after(view, scene, record))
    return step.why if isinstance(step, plan.Rest) else ""


def _view_after(view: View, scene: Scene, record: Record) -> View:
    """Return a view of a disk after a move that worked, of what its actions found and made."""
    observed = view.observed
    if record.state is State.ATTACHED:
        observed = attrs.evolve(
            observed,
            base=scene.base or observed.base,
            cow=scene.cow or observed.cow,
            cow_header=CowHeader.EMPTY if scene.cow_is_new else observed.cow_header,
            base_loop=scene.base_loop or observed.base_loop,
            cow_loop=scene.cow_loop or observed.cow_loop,
        )
    seen = Appraisal(shape=_SHAPES[record.state])
    return View(record=record, observed=observed, seen=seen, driver=view.driver, ground=view.ground)

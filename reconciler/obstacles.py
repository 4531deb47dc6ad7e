"""What stands in the way of a transition before anything is touched: a driver, room, a holder.

Looks and judges; changes nothing but that a disk that is waited for is written out meanwhile.
May be imported by reconcile.
"""

from __future__ import annotations

import contextlib

from reconciler import busy
from reconciler.drivers.port import View
from reconciler.kernel.port import Kernel
from reconciler.observe import Choice
from reconciler.plan import Move
from reconciler.protect import NO_SPACE, no_room
from statemachine.errors import ActionError, BlockedError, PermanentError
from statemachine.machine import Trigger


def find(kernel: Kernel, view: View, choice: Choice, move: Move) -> ActionError | None:
    """Say why a transition cannot begin; None when it can. A disk in use is written out."""
    obstacle = _unready(choice, move) or _no_room(view, move) or _holder(kernel, view, move)
    if obstacle is not None:
        _flush_ahead(kernel, view, move, obstacle)
    return obstacle


def _unready(choice: Choice, move: Move) -> ActionError | None:
    if not choice.unavailable or move.trigger in (Trigger.PAUSE, Trigger.REMOVE):
        return None
    msg = f"driver {choice.driver.name} cannot work here: {choice.unavailable}"
    return PermanentError(msg, kind="no-driver", hint="`byre doctor` says what is missing")


def _no_room(view: View, move: Move) -> BlockedError | None:
    """Refuse to begin what the file system has no room for; what was begun is finished."""
    why = no_room(view, move.trigger) if move.resumes is None else ""
    hint = "make room: `byre remove`, or more space; it goes on by itself"
    return BlockedError(why, kind=NO_SPACE, hint=hint) if why else None


def _holder(kernel: Kernel, view: View, move: Move) -> BlockedError | None:
    """Look for a holder before anything is touched: a disk in use keeps its link, too."""
    if move.trigger not in (Trigger.PAUSE, Trigger.REMOVE):
        return None
    held = busy.look(kernel, view.record, view.observed, move.trigger)
    return None if held is None else busy.error_of(held)


def _flush_ahead(kernel: Kernel, view: View, move: Move, obstacle: ActionError) -> None:
    """Have a disk that is waited for written out meanwhile: its user's last close is short."""
    if move.trigger is Trigger.PAUSE and obstacle.kind == busy.KIND and view.observed.dm:
        with contextlib.suppress(ActionError):  # it is a help, and no more
            kernel.flush_ahead(view.observed.dm.uuid)

"""Doing a plan: each action in order; on the first failure, what was changed is taken back.

No choices are made here. May be imported by reconcile.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from reconciler.actions import Action, Scene
from statemachine.errors import ActionError, RefusedError


@attrs.frozen(kw_only=True)
class Done:
    """Every action worked; `changed` names those that had something to change."""

    changed: tuple[Action, ...]


@attrs.frozen(kw_only=True)
class Failed:
    """One action did not work, and what was changed before it was taken back."""

    action: str
    error: ActionError | RefusedError
    undone: tuple[str, ...]
    not_undone: tuple[str, ...]


def act(actions: Sequence[Action], scene: Scene) -> Done | Failed:
    """Do actions in order.

    Returns:
        `Done`, or `Failed` with what was undone, last change first. An undo that fails does not
        hide the failure; it is named in `not_undone` with its reason.
    """
    changed: list[Action] = []
    for action in actions:
        try:
            if action.do(scene):
                changed.append(action)
        except (ActionError, RefusedError) as error:
            undone, not_undone = _undo(changed, scene)
            return Failed(action=str(action), error=error, undone=undone, not_undone=not_undone)
    return Done(changed=tuple(changed))


def _undo(changed: Sequence[Action], scene: Scene) -> tuple[tuple[str, ...], tuple[str, ...]]:
    undone: list[str] = []
    not_undone: list[str] = []
    for action in reversed(changed):
        try:
            action.undo(scene)
            undone.append(str(action))
        except (ActionError, RefusedError) as error:
            not_undone.append(f"{action}: {error.message}")
    return tuple(undone), tuple(not_undone)

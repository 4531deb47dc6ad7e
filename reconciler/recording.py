"""What a transition leaves in the log: its intent, its outcome, or why it failed.

Looks at what was done and puts it into the payloads of the log; appends nothing.
May be imported by reconcile.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Final

import attrs

from reconciler.act import Done, Failed
from reconciler.actions import Action, Scene
from reconciler.drivers.port import View
from reconciler.observe import Choice
from reconciler.plan import Move, NoteDrift
from statemachine import payloads
from statemachine.errors import ActionError
from statemachine.events import CORRELATION_BYTES, NewEvent
from statemachine.fileidentity import FileIdentity
from statemachine.machine import GONE, LIVE, State, Trigger
from statemachine.record import Record
from statemachine.spec import DriverChoice

ACTOR: Final = "reconciler"
HOLDS_BASE: Final = LIVE | {State.ATTACHED}
"""The states in which a disk needs its base's loop device."""


def uses_base_loop(record: Record) -> bool:
    """Tell whether a disk has its base's loop, or may have it by an intent that is open."""
    has_or_may = record.state in HOLDS_BASE or record.in_flight is not None
    return has_or_may and record.driver == DriverChoice.DM_SNAPSHOT


def event(disk: str, payload: object, record: Record | None = None) -> NewEvent:
    """Return an event of the reconciler's own, decided upon a record if it is about a disk."""
    begins = record is None or (isinstance(payload, payloads.DriftDetected) and _is_over(record))
    return NewEvent(
        disk=disk,
        type=payloads.type_of(payload),
        data=payloads.to_data(payload),
        payload=payload,
        actor=ACTOR,
        expect=record.expect if record else None,
        generation=record.generation if record else 0,
        correlation_id=record.correlation_id
        if record and not begins
        else secrets.token_hex(CORRELATION_BYTES),
    )


def next_generation(record: Record, base: FileIdentity) -> NewEvent:
    """Return what begins the next life of a name that is wanted again."""
    payload = payloads.DiskDeclared(
        id=record.id,
        spec=record.spec,
        device_name=record.device_name,
        base=base,
        why="wanted again while it was being removed",
    )
    return attrs.evolve(event(record.name, payload, record), generation=record.generation + 1)


def _is_over(record: Record) -> bool:
    """Tell whether the last request is done: a drift from now on is a story of its own.

    One that comes in between belongs to the request, whose end comes only after its repair.
    """
    is_busy = record.in_flight is not None or record.failure is not None
    return record.is_met and not is_busy


def drifted(view: View, choice: Choice, step: NoteDrift) -> payloads.DriftDetected:
    """Return what the kernel shows and the record does not."""
    record = view.record
    is_news = step.trigger is Trigger.FIND and step.source is State.ABSENT
    rebooted = record.boot_id != view.ground.boot_id
    return payloads.DriftDetected(
        trigger=step.trigger,
        source=step.source,
        target=step.target,
        differences=step.differences,
        cause="reboot" if rebooted and step.trigger in GONE else "",
        cow=view.observed.cow if is_news else None,
        cow_path=str(choice.driver.cow_path(record, view.ground)) if is_news else "",
        driver=choice.driver.name if is_news else "",
    )


def started(
    view: View, choice: Choice, move: Move, *, made_folders: tuple[str, ...]
) -> payloads.TransitionStarted:
    """Return the intent: what is about to be done, and what a crash would leave to look for."""
    record = view.record
    return payloads.TransitionStarted(
        trigger=move.trigger,
        source=move.source,
        target=move.target,
        attempt=record.attempts + 1,
        driver=choice.driver.name,
        driver_reason=choice.fell_back_because,
        # What follows from the record needs no telling; what a crash left does not follow from it.
        actions=tuple(map(_name, move.actions)) if move.resumes is not None else (),
        resumes=move.resumes,
        cow_path="" if record.cow_path else str(choice.driver.cow_path(record, view.ground)),
        made_folders=tuple(each for each in made_folders if each not in record.made_folders),
    )


def _name(action: Action) -> str:
    return type(action).__name__


def completed(
    view: View, move: Move, scene: Scene, done: Done, *, duration_ns: int
) -> payloads.TransitionCompleted:
    """Return the outcome of a transition that worked, with what is there now."""
    record, link = view.record, view.record.wanted.link
    live, held = move.target in LIVE, move.target in HOLDS_BASE
    has_link, jail = live and link is not None, record.wanted.jail if live else None
    number = str(scene.device or record.device_number) if live else ""
    base_loop = scene.base_loop or view.observed.base_loop
    cow_loop = scene.cow_loop or view.observed.cow_loop
    # An earlier attempt may have set out to make it by another driver's name.
    cow_path = record.cow_file
    if not record.cow_path:
        cow_path = view.driver.cow_path(record, view.ground)
    device = (scene.device_path or record.device) if live else ""
    target = scene.link_target if has_link else ""
    return payloads.TransitionCompleted(
        trigger=move.trigger,
        source=move.source,
        target=move.target,
        unchanged=_unchanged(move, done) if move.resumes is not None else (),
        **_cow_told(view, scene, cow_path, move.target),
        cow_method=scene.cow_method,
        cow_next=scene.cow_next,
        saved_bytes=scene.saved_bytes,
        device=device,
        device_number=number,
        base_loop=base_loop.number if held and base_loop else None,
        cow_loop=cow_loop.number if held and cow_loop else None,
        link=str(link) if has_link else "",
        link_target="" if target == device else target,
        jail_node=str(jail.path) if jail is not None else "",
        jail_number=number if jail is not None else "",
        duration_ns=duration_ns,
    )


def _unchanged(move: Move, done: Done) -> tuple[str, ...]:
    return tuple(_name(each) for each in move.actions if each not in done.changed)


def _cow_told(view: View, scene: Scene, path: Path, target: State) -> dict[str, Any]:
    """Return what an outcome says of the disk's own file: what is not known of it already."""
    if target is State.REMOVED:
        return {}
    known, found = view.record.cow, _cow_now(view, scene, path)
    if found is None:
        return {"cow_is_other": True}
    if known is None or _all_but_mtime(known) != _all_but_mtime(found):
        return {"cow": found}
    return {} if known.mtime_ns == found.mtime_ns else {"cow_mtime_ns": found.mtime_ns}


def _all_but_mtime(file: FileIdentity) -> tuple[object, ...]:
    return (file.device, file.inode, file.size, file.kind)


def _cow_now(view: View, scene: Scene, path: Path) -> FileIdentity | None:
    """Return the disk's own file as it is now; None for another one that was put in its place.

    To record that one would make it the disk's own, and the right file a stranger.
    """
    if scene.cow_is_new:  # made by this very transition, and nobody has heard of it yet
        return scene.cow
    record, found = view.record, scene.kernel.identify(path)
    known = scene.cow or record.cow
    same_boot = scene.cow is not None or record.cow_boot_id == view.ground.boot_id
    is_own = found is not None and (known is None or known.same_file(found, same_boot=same_boot))
    return found if is_own else None


def failed(
    move: Move,
    failure: Failed,
    *,
    consequence: str,
    attempt: int,
    retry_at: int | None,
    world: str,
    overdue: bool = False,
) -> payloads.TransitionFailed:
    """Return the outcome of a transition that did not work.

    Args:
        move: what was tried.
        failure: what went wrong, and what was taken back.
        consequence: "transient", "blocked" or "permanent".
        attempt: how many have failed by now.
        retry_at: UTC in ns; None to wait for a change.
        world: the digest of what was observed afterwards.
        overdue: whether it has been in use for longer than its spec allows for.
    """
    error = failure.error
    known = error if isinstance(error, ActionError) else None
    return payloads.TransitionFailed(
        trigger=move.trigger,
        source=move.source,
        target=move.target,
        consequence=consequence,
        kind=error.kind,
        message=error.message,
        attempt=attempt,
        errno=known.errno if known else None,
        hint=error.hint,
        exit_code=error.exit_code,
        action=failure.action,
        holders=known.holders if known else (),
        retry_at=retry_at,
        world=world,
        overdue=overdue,
        undone=failure.undone,
        not_undone=failure.not_undone,
    )

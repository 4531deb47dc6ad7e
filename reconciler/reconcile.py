"""One pass for one disk: look, decide, record the intent, act, record the outcome; and again.

The order is what makes a crash harmless: the intent is durable before the first change, the
outcome after the last, and no kernel call happens while the log is locked. A pass that finds
nothing to do writes nothing.

What this module does not do: it starts no thread, waits for nothing, and takes no lock of the
root; its caller holds that. May be imported by daemon, by the API and by cli.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

from reconciler import (
    busy,
    hostnotes,
    lapse,
    observe,
    obstacles,
    onward,
    plan,
    recording,
    resting,
    retold,
    specs,
    stalenodes,
)
from reconciler.act import Failed, act
from reconciler.actions import TWO_LOOPS, MakeFolder, Scene
from reconciler.backoff import Backoff
from reconciler.bases import BaseLoops
from reconciler.clock import Clock
from reconciler.config import Settings
from reconciler.drivers.port import View
from reconciler.folders import MadeFolders
from reconciler.kernel.port import Kernel
from reconciler.protect import NO_SPACE, no_room
from reconciler.protector import Protector
from reconciler.recording import HOLDS_BASE, uses_base_loop
from reconciler.root import Root
from statemachine import payloads
from statemachine.errors import ActionError, SpecError, VersionConflict
from statemachine.eventlog import EventLog
from statemachine.foresight import foresee
from statemachine.machine import GONE, LIVE, State, Trigger
from statemachine.record import Record

STEPS_MAX: Final = 16
"""More steps than any path through the table has, with a drift at each; a bound, not a target."""

FindRecord = Callable[[str], Record | None]

_NS: Final = 1_000_000_000


@attrs.frozen(kw_only=True)
class Settled:
    """How a pass ended. `again_s`: when to look again; None until something wakes it."""

    again_s: float | None
    why: str
    was_seen: bool = True
    """Whether the disk could be looked at."""
    is_done: bool = False
    """Whether all that is desired was done, and `again_s` is for the look at it."""
    held: busy.Held | None = None
    """Whom it waits for, when it is in use: whose letting go is worth another look."""
    lapses_s: float | None = None
    """When it is to be looked at again though all is well: its time may be over by then."""


class Reconciler:
    """Brings disks of one root to where they should be. Safe for several threads, one disk each.

    Args:
        log: the root's log, open for writing.
        kernel: what is changed.
        root: where files are.
        settings: bounds and delays.
        clock: for delays and durations.
        random: 0 to 1, for the jitter of delays.
        known: the records that a caller keeps who makes another pass when one says `again_s`,
            whatever the log says: the look after a transition is left to that pass. What is known
            may be a little behind the log: an event that is decided upon it is refused then.
    """

    def __init__(
        self,
        log: EventLog,
        kernel: Kernel,
        root: Root,
        *,
        settings: Settings,
        clock: Clock,
        random: Callable[[], float],
        known: FindRecord | None = None,
    ) -> None:
        self.log = log
        self.kernel = kernel
        self.root = root
        self.settings = settings
        self.bases = BaseLoops(kernel, log.root_id)
        self._folders = MadeFolders()
        self._protector = Protector(kernel, self._append, clock.now_ns)
        self._clock = clock
        self._random = random
        self._known = known
        self._backoff = Backoff(
            first_s=settings.backoff_first_s,
            cap_s=settings.backoff_cap_s,
            attempts_max=settings.attempts_max,
        )

    # --- the whole root ----------------------------------------------------------------------

    def begin(self) -> None:
        """Get ready: tell of a new boot, claim the bases in use, give back those that are not.

        Called once, before the first pass, by whoever holds the root's lock. Idempotent.
        """
        if told := retold.of_a_copy_by_hand(self.log):
            self.log.append(told)
        hostnotes.booted(self.log, self.kernel.boot_id())
        for record in self.log.in_use():
            if uses_base_loop(record):
                self.bases.claim(record.name, observe.base_of(self.kernel, record))
            self._folders.note(record.made_folders)
            stalenodes.drop(self.kernel, record, boot_id=self.log.boot_id)
        self.bases.sweep()

    # --- one disk ----------------------------------------------------------------------------

    def reconcile(self, name: str) -> Settled:
        """Bring one disk as near to what is desired as is possible now.

        Args:
            name: a disk of the log; an unknown one is settled.

        Raises:
            LogUnavailable, LogDamaged: the log; what was begun is finished by the next pass.
            ActionError: looking at the disk failed.
        """
        record = (self._known(name) if self._known else None) or self.log.record(name)
        for _ in range(STEPS_MAX):
            if record is None:
                return Settled(again_s=None, why="no such disk")
            settled = None
            try:
                if lapse.is_expired(record, self._clock.now_ns()):
                    self._append(record, lapse.declared(record, payloads.EXPIRED))
                else:
                    settled = self._step(record)
            except VersionConflict:
                pass  # somebody declared meanwhile: look again
            if settled is not None:
                left_s = lapse.left_s(record, self._clock.now_ns(), settled.lapses_s)
                return attrs.evolve(settled, lapses_s=left_s)
            record = self.log.record(name)
        return Settled(again_s=self.settings.backoff_cap_s, why="it does not come to rest")

    def _step(self, record: Record) -> Settled | None:
        """Take one step; None when the disk should be looked at again at once."""
        view, choice = self._look(record)
        step = plan.decide(view)
        if isinstance(step, plan.Rest):
            return self._rest(view, step)
        if isinstance(step, plan.NoteFault):
            self._append(record, payloads.DiskFaulted(**attrs.asdict(step)))
            return Settled(again_s=None, why=step.message)
        if isinstance(step, plan.NextGeneration):
            return self._next_generation(record)
        if isinstance(step, plan.Move):
            return self._held_back(view, step) or self._transition(view, choice, step)
        if isinstance(step, plan.NoteDrift) and step.trigger is Trigger.REPAIR:
            return self._repair(view, choice, step)
        if isinstance(step, plan.NoteDrift):
            self._note_drift(view, choice, step)
        else:
            self._protector.do(view, step)
        return None

    def _rest(self, view: View, step: plan.Rest) -> Settled | None:
        lapsed, look_s = resting.look(self.kernel, view.record, view.observed, self._clock.now_ns())
        if lapsed is None:
            return Settled(again_s=None, why=step.why, lapses_s=look_s)
        self._append(view.record, lapsed)
        return None

    def _look(self, record: Record) -> tuple[View, observe.Choice]:
        return observe.look(self.kernel, self.bases, self.root, record, self.settings)

    def _repair(self, view: View, choice: observe.Choice, step: plan.NoteDrift) -> Settled | None:
        move = plan.repair(view, step.differences)
        held = self._held_back(view, move)
        if held is not None:
            return held
        failure = view.record.failure
        if failure is None or failure.trigger is not Trigger.REPAIR:
            view = attrs.evolve(view, record=self._note_drift(view, choice, step))
        return self._transition(view, choice, move)

    def _note_drift(self, view: View, choice: observe.Choice, step: plan.NoteDrift) -> Record:
        record = view.record
        record = self._append(record, recording.drifted(view, choice, step))
        if step.trigger is Trigger.FIND and uses_base_loop(record):
            self.bases.claim(record.name, observe.base_of(self.kernel, record))
        elif step.trigger in GONE:
            self.bases.release(record.name, observe.base_of(self.kernel, record))
        return record

    def _next_generation(self, record: Record) -> Settled | None:
        try:
            base = specs.check_base("the log", record.wanted, self.kernel)
        except SpecError as error:
            return Settled(again_s=self.settings.resync_s, why=error.message)
        self.log.append([recording.next_generation(record, base)])
        return None

    # --- holding back ------------------------------------------------------------------------

    def _held_back(self, view: View, move: plan.Move) -> Settled | None:
        """Say when to try if not now: a backoff is running, or nothing has changed since."""
        failure = view.record.failure
        if failure is None or move.resumes is not None or failure.trigger is not move.trigger:
            return None
        if failure.retry_at is None:
            same_world = failure.world == observe.world(view.observed, view.ground.capabilities)
            stays = same_world or busy.has_given_up(failure)
            return Settled(again_s=None, why=f"stalled: {failure.message}") if stays else None
        wait_s = (failure.retry_at - self._clock.now_ns()) / _NS
        if failure.kind == busy.KIND:
            return self._held_by(view, move)
        if failure.kind == NO_SPACE and (why := no_room(view, move.trigger)):
            return Settled(again_s=self.settings.blocked_poll_s, why=why)
        is_free = failure.kind == TWO_LOOPS and not self._on_other_loops(view)
        if wait_s <= 0 or is_free or failure.kind == NO_SPACE:
            return None
        return Settled(again_s=wait_s, why=f"waits after attempt {view.record.attempts}")

    def _on_other_loops(self, view: View) -> bool:
        """Tell whether a loop that was in the way is on the disk's own file still."""
        cow, failure = view.observed.cow, view.record.failure
        others = failure.holders if failure is not None else ()
        here = (loop for loop in self.kernel.loops() if cow is not None and loop.backs(cow))
        return any(loop.path in others for loop in here)

    def _held_by(self, view: View, move: plan.Move) -> Settled | None:
        """Wait on while the disk is in use; None at once when its last holder has let go.

        Waiting is no event. That its time is over is one, once.
        """
        record, failure = view.record, view.record.failure
        held = busy.look(self.kernel, record, view.observed, move.trigger)
        if held is None or failure is None:
            return None
        waited_s = busy.time_waited_s(record, move.trigger, self._clock.now_ns())
        error = busy.error_of(held)
        if waited_s >= record.wanted.busy_timeout_s and not failure.overdue:
            failed = Failed(action="", error=error, undone=(), not_undone=())
            return attrs.evolve(self._fail(view, move, failed), held=held)
        again_s = busy.poll_s(record, waited_s, self.settings)
        return Settled(again_s=again_s, why=error.message, held=held)

    # --- one transition ----------------------------------------------------------------------

    def _transition(self, view: View, choice: observe.Choice, move: plan.Move) -> Settled | None:
        """Intent, act, outcome."""
        obstacle = obstacles.find(self.kernel, view, choice, move)
        if obstacle is not None:
            failed = Failed(action="", error=obstacle, undone=(), not_undone=())
            return self._fail(view, move, failed)
        begun = self._append(view.record, self._intent(view, choice, move))
        return self._act(attrs.evolve(view, record=begun), choice, move)

    def _intent(
        self, view: View, choice: observe.Choice, move: plan.Move
    ) -> payloads.TransitionStarted:
        return recording.started(view, choice, move, made_folders=self._folders_of(view, move))

    def _act(
        self, view: View, choice: observe.Choice, move: plan.Move, before: Scene | None = None
    ) -> Settled | None:
        """Do what an intent in the log says; then its outcome, and what follows on it at once."""
        began_s = self._clock.monotonic_s()
        scene = self._scene(view)
        if before is not None:
            scene.goes_on_from(before)
        result = act(move.actions, scene)
        if isinstance(result, Failed):
            if move.source not in HOLDS_BASE and scene.base is not None:
                self.bases.release(scene.disk, scene.base)
            return self._fail(view, move, result)
        duration_ns = int((self._clock.monotonic_s() - began_s) * _NS)
        outcome = recording.completed(view, move, scene, result, duration_ns=duration_ns)
        if move.target is State.ATTACHED:
            following = self._onward(view, choice, scene, outcome)
            if following is not None:
                return self._act(*following, before=scene)
        ended = self._append(view.record, outcome, late=True)
        if move.target not in LIVE:
            made = view.record.made_folders
            self._folders.forget([f for f in made if not self.kernel.identify(Path(f))])
        # At what was desired, the look at what was done comes a little later.
        why = onward.rests(view, scene, ended) if self._known else ""
        return Settled(again_s=onward.LOOK_AFTER_S, why=why, is_done=True) if why else None

    def _onward(
        self,
        view: View,
        choice: observe.Choice,
        scene: Scene,
        outcome: payloads.TransitionCompleted,
    ) -> tuple[View, observe.Choice, plan.Move] | None:
        """Record an outcome and the next intent in one commit, if one follows; else neither."""
        ended = recording.event(view.record.name, outcome, view.record)
        record = foresee(view.record, ended, at=self._clock.now_ns(), boot_id=self.log.boot_id)
        following = onward.next_move(view, scene, record)
        if following is None:
            return None
        after, move = following
        if obstacles.find(self.kernel, after, choice, move) is not None:
            return None
        begun = recording.event(record.name, self._intent(after, choice, move), record)
        try:
            self.log.append([ended, begun])
        except VersionConflict:
            return None
        return after, choice, move

    def _folders_of(self, view: View, move: plan.Move) -> tuple[str, ...]:
        """Return the folders that are ours to take away with this disk's link and node."""
        made = tuple(str(action.path) for action in move.actions if isinstance(action, MakeFolder))
        places = view.record.wanted.places if move.target in LIVE else ()
        shared = (folder for _, path in places for folder in self._folders.above(path))
        self._folders.note(made)
        return tuple(dict.fromkeys((*shared, *made)))

    def _scene(self, view: View) -> Scene:
        record, observed = view.record, view.observed
        hint = observed.cow_loop.number if observed.cow_loop else record.cow_loop
        return Scene(
            kernel=self.kernel,
            bases=self.bases,
            disk=record.name,
            same_boot=record.base_boot_id == view.ground.boot_id,
            link_roots=self.settings.link_roots,
            cow_loop_hint=hint,
        )

    def _fail(self, view: View, move: plan.Move, failed: Failed) -> Settled:
        """Record a failure and say when to try again."""
        record, error = view.record, failed.error
        attempt, overdue = record.attempts + 1, False
        if isinstance(error, ActionError) and error.kind == busy.KIND:
            waited_s = busy.time_waited_s(record, move.trigger, self._clock.now_ns())
            verdict = busy.judge(error, record, waited_s)
            error, overdue = verdict.error, verdict.overdue
        consequence = error.consequence if isinstance(error, ActionError) else "permanent"
        if consequence == "transient" and attempt >= self.settings.attempts_max:
            consequence = "permanent"
        wait_s = None
        if consequence != "permanent":
            wait_s = self._backoff.delay_s(attempt, self._random)
        payload = recording.failed(
            move,
            attrs.evolve(failed, error=error),
            consequence=consequence,
            attempt=attempt,
            retry_at=None if wait_s is None else self._clock.now_ns() + int(wait_s * _NS),
            world=self._world(record),
            overdue=overdue,
        )
        self._append(record, payload, late=True)
        return Settled(again_s=wait_s, why=error.message)

    def _world(self, record: Record) -> str:
        """Digest the world as it is after the undo, which is what the next pass will see."""
        try:
            view, _ = self._look(record)
        except ActionError:
            return ""
        return observe.world(view.observed, view.ground.capabilities)

    # --- the log -----------------------------------------------------------------------------

    def _append(self, record: Record, payload: object, *, late: bool = False) -> Record:
        """Append one event of a disk; an outcome (`late`) even if somebody declared meanwhile.

        Returns:
            The record after it, with what was declared meanwhile.
        """
        event = recording.event(record.name, payload, record)
        after = self.log.advance([attrs.evolve(event, expect=None) if late else event])
        assert after is not None, "a disk with a record keeps it"
        return after

"""`byre run`: keeps a root's disks as they should be until it is told to stop.

One per root, by lock. Everything that happens becomes a key in one of two queues: a disk's name
for the workers ("look at it"), or a chore for this thread (read the specs, see what is new in the
log, look at everything). Watchers make hints, hints make keys, and a lost hint is made good by the
full resync.

What this module does not do: it decides nothing about a disk (plan does) and talks to no kernel
itself. May be imported by cli.
"""

from __future__ import annotations

import enum
import importlib.metadata
import random
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import structlog

from reconciler import hostnotes, interpreter, lapse, orphans, resting, signals, specs, survey
from reconciler.api import Byre
from reconciler.guard import Guard
from reconciler.index import Index
from reconciler.known import Known
from reconciler.latelooks import LateLooks, are_for_a_survey
from reconciler.news import News
from reconciler.onward import LOOK_AFTER_S
from reconciler.reconcile import Reconciler, Settled
from reconciler.watch.hint import Hint, HintKind, Watcher
from reconciler.watch.linkfolders import LinkFolderWatcher
from reconciler.watch.releases import ReleaseWatcher
from reconciler.workers import AFTER_ERROR_S, Workers
from reconciler.workqueue import WorkQueue
from statemachine import history
from statemachine.commits import Commit
from statemachine.errors import ByreError, LogDamaged, LogUnavailable
from statemachine.head import HEAD_NAME
from statemachine.record import Record

SETTLE_S: Final = 0.1
"""How long a spec folder must be quiet before it is read: editors write in several steps."""
ECHO_S: Final = LOOK_AFTER_S
"""What the kernel tells of a disk so soon after a pass is mostly what that pass did."""
HOLD_S: Final = 0.05
"""While a worker is at work, what the kernel tells is left unread so long: it is mostly what that
worker does, and who reads it takes the interpreter from the worker, again and again."""
RESYNC_JITTER: Final = 0.2
"""A resync comes a fifth earlier or later, so that many hosts do not fall into step."""
TAIL_EVENTS: Final = 500
"""With more events than that since the last checkpoint, one is written at the end: the next start
then reads next to nothing."""
CHORE_TIMEOUT_S: Final = 3600.0


class Chore(enum.StrEnum):
    """What the daemon's own thread does when it is woken."""

    SPECS = "specs"
    LOG = "log"
    LINKS = "links"
    LOOK = "look"
    RESYNC = "resync"
    STOP = "stop"


class Daemon:
    """A running reconciler.

    Args:
        byre: the open root.
        specs_path: a file or folder of specs to keep to; None for the log alone.
        watchers: the eyes; one that cannot work here is reported and done without.
    """

    def __init__(
        self, byre: Byre, *, specs_path: Path | None = None, watchers: Sequence[Watcher] = ()
    ) -> None:
        self._byre = byre
        self._specs_path = specs_path
        self._links = LinkFolderWatcher()
        self._releases = ReleaseWatcher(byre.clock)
        self._watchers: tuple[Watcher, ...] = (*watchers, self._links, self._releases)
        self._waits: dict[str, str] = {}
        self._late = LateLooks(byre.clock)
        self._passed_s: dict[str, float] = {}
        """When the last pass of each disk ended; begun anew at each resync."""
        self._disks: WorkQueue[str] = WorkQueue(byre.clock)
        self._chores: WorkQueue[Chore] = WorkQueue(byre.clock)
        self._index = Index()
        self._known = Known()
        self._news = News(byre.log, self._known, self._learn)
        self._guard = Guard(
            byre.kernel, byre.root.cows, byre.settings, byre.clock, self._wake_disks_first
        )
        self._is_thorough = True
        self._why = "stopped"
        self._last_spec_error = ""
        self._damage: LogDamaged | None = None
        self._log = structlog.get_logger("byre")

    def run(self) -> None:
        """Work until SIGTERM, SIGINT or `stop`; ends after the transitions in flight.

        Raises:
            RootBusy: another reconciler has this root.
            LogUnavailable: the log cannot be used; nothing was changed.
            LogDamaged: at the start: nothing was changed. Later: nothing more was, and all disks
                are as they were.
        """
        byre = self._byre
        byre.lock.take_over(byre.clock, stays=True)
        try:
            history.prove(byre.log)
            reconciler = byre.reconciler(known=self._known.find)
            hostnotes.started(byre.log, version=importlib.metadata.version("byre"))
            with interpreter.at_work(), byre.log.head.kept_open():
                self._work(reconciler)
            hostnotes.stopped(byre.log, why=self._why)
            byre.log.checkpoint(after_events=TAIL_EVENTS)
        finally:
            byre.lock.release()

    def run_with_signals(self) -> None:
        """`run`, with SIGTERM and SIGINT as `stop` and SIGHUP as `reload`; main thread only."""
        with signals.told(self._take_signal):
            self.run()

    def stop(self, why: str) -> None:
        """End soon, from any thread."""
        self._why = why
        self._chores.add(Chore.STOP)

    def reload(self) -> None:
        """Read the specs again and look thoroughly at everything, from any thread."""
        self._is_thorough = True
        self._chores.add(Chore.SPECS)
        self._chores.add(Chore.RESYNC)

    def resync(self) -> None:
        """Survey the host now, as when a resync is due, from any thread."""
        self._chores.add(Chore.RESYNC)

    def _take_signal(self, number: signal.Signals) -> None:
        if number is signal.SIGHUP:
            self._log.info("reloading")
            self.reload()
        else:
            self.stop(number.name)

    # --- the loop ----------------------------------------------------------------------------

    def _work(self, reconciler: Reconciler) -> None:
        settings = self._byre.settings
        workers = Workers(
            self._disks,
            reconciler.reconcile,
            int(settings.workers),
            settled=self._tell,
            damaged=self._end_for,
        )
        self._news.begin()
        self._start_watchers()
        self._learn(self._known.news(self._byre.log))
        self._guard.start()
        self._byre.log.on_commit = self._take_in
        for chore in (Chore.SPECS, Chore.RESYNC):
            self._chores.add(chore)
        workers.start()
        self._log.info("reconciler started", root=str(self._byre.root.path))
        try:
            while self._next_chore():
                pass
        finally:
            self._log.info("stopping after the transitions in flight", why=self._why)
            self._guard.stop()
            self._disks.shut_down(drain=False)
            if not workers.join():
                self._log.error("a transition in flight did not end; it is resumed at next start")
            for watcher in self._watchers:
                watcher.stop()
        if self._damage is not None:
            raise self._damage

    def _end_for(self, damage: LogDamaged) -> None:
        """End because nothing that is recorded can be relied on; the kernel keeps the disks."""
        self._damage = damage
        self.stop("the log is damaged")

    def _next_chore(self) -> bool:
        """Do one chore; False when it was the last."""
        chore = self._chores.get(CHORE_TIMEOUT_S)
        if chore is None:
            return True
        try:
            if chore is Chore.STOP:
                return False
            self._do(chore)
        except LogDamaged as error:
            self._end_for(error)
        except ByreError as error:
            self._log.error("chore failed", chore=chore.value, error=error.message, hint=error.hint)
            self._chores.add_after(chore, AFTER_ERROR_S)
        finally:
            self._chores.done(chore)
        return True

    def _do(self, chore: Chore) -> None:
        if chore is Chore.LINKS:
            self._links.set_folders(self._index.link_folders())
        elif chore is Chore.LOOK:
            self._look()
        else:
            if chore is Chore.SPECS:
                self._read_specs()
            elif chore is Chore.RESYNC:
                self._resync()
            self._wake_disks(self._news.read())

    def _resync(self) -> None:
        """Look at every disk; the safety net under every hint that was lost.

        At the start and on a person's word by a pass for each, else by one survey of the host and
        a pass for those that it is not sure of.
        """
        self._learn(self._known.news(self._byre.log))
        self._index.tidy()
        self._guard.tidy()
        self._passed_s = {}
        records = self._known.records()
        self._links.set_folders(self._index.link_folders())
        seen = None if self._is_thorough else self._survey()
        self._is_thorough = False
        now_ns = self._byre.clock.now_ns()
        for record in records:
            if not self._is_quiet(record, seen, now_ns):
                self._disks.add(record.name)
        jitter = 1 + RESYNC_JITTER * (2 * random.random() - 1)  # noqa: S311 - not a secret
        self._chores.add_after(Chore.RESYNC, self._byre.settings.resync_s * jitter)
        if seen is None or survey.has_strangers(records, seen, self._byre.kernel):
            self._note_orphans()

    def _look(self) -> None:
        """Look at disks that came to rest a moment ago, by a pass each or all by one survey."""
        names = self._late.take(others_wait=len(self._disks) > 0)
        if len(self._late):
            self._chores.add_after(Chore.LOOK, ECHO_S)
        seen = self._survey() if are_for_a_survey(len(names), len(self._known)) else None
        now_ns = self._byre.clock.now_ns()
        for name in names:
            found = self._known.find(name)
            if found is None or resting.is_timed(found) or not self._is_quiet(found, seen, now_ns):
                self._disks.add(name)

    def _survey(self) -> survey.Survey | None:
        byre = self._byre
        try:
            return survey.take(byre.kernel, byre.root, byre.settings)
        except ByreError as error:
            self._log.error("cannot survey the host", error=error.message, hint=error.hint)
            return None

    def _is_quiet(self, record: Record, seen: survey.Survey | None, now_ns: int) -> bool:
        if seen is None or lapse.is_expired(record, now_ns):
            return False  # the clock may have been set since its time was put into the queue
        try:
            return survey.is_quiet(record, seen, self._byre.kernel)
        except ByreError:
            return False

    def _note_orphans(self) -> None:
        """Tell once of each thing that carries our identity and belongs to no disk."""
        byre = self._byre
        try:
            found = orphans.survey(byre.log, byre.kernel, byre.root)
            ours = [orphan for orphan in found if not orphan.elsewhere]
            for orphan in orphans.newly_found(byre.log, ours):
                byre.log.append([orphans.found_event(orphan)])
                self._log.warning("orphan found", name=orphan.name, why=orphan.evidence)
        except LogDamaged:
            raise
        except ByreError as error:
            self._log.error("cannot look for orphans", error=error.message, hint=error.hint)

    def _read_specs(self) -> None:
        """Declare what the specs say; a faulty set changes nothing and is reported once."""
        if self._specs_path is None:
            return
        try:
            declared = self._byre.apply(
                specs.read(str(self._specs_path)), reason=f"specs in {self._specs_path}"
            )
        except (LogDamaged, LogUnavailable):
            raise  # nothing is wrong with the specs: they are read again
        except ByreError as error:
            if error.message != self._last_spec_error:
                for line in error.message.splitlines():
                    self._log.error("spec not accepted, nothing declared", error=line)
            self._last_spec_error = error.message
            return
        self._last_spec_error = ""
        for each in declared:
            if each.changed:
                self._log.info("declared", disk=each.name)

    # --- hints -------------------------------------------------------------------------------

    def _start_watchers(self) -> None:
        for watcher in self._watchers:
            watcher.start(self._wake, self._hold_s)
            if watcher.unavailable:
                self._log.warning(
                    "cannot watch; the resync looks instead",
                    watcher=watcher.name,
                    why=watcher.unavailable,
                )

    def _hold_s(self) -> float:
        return HOLD_S if self._disks.is_busy else 0.0

    def _wake(self, hint: Hint) -> None:
        """Turn a hint into keys; called from the watchers' threads, soon done, never raises."""
        if hint.kind is HintKind.ALL:
            self.reload()
        elif hint.kind is HintKind.SPEC:
            self._chores.add_after(Chore.SPECS, SETTLE_S)
        elif hint.kind is HintKind.LOG:
            self._hear_of_log(hint)
        elif hint.kind is HintKind.DISK:
            self._wake_disks((hint.name,))
        else:
            for name in self._index.find(hint.name):
                self._wake_after_echo(name)
            self._releases.told(hint.name)

    def _hear_of_log(self, hint: Hint) -> None:
        """Read what others appended here, in the watcher's thread: they wait for it."""
        is_noted = hint.name == HEAD_NAME
        try:
            if self._news.is_any_by_the_head() if is_noted else self._news.is_any():
                self._wake_disks(self._news.read())
        except ByreError:
            self._chores.add(Chore.LOG)  # there it is tried again, and told

    def _take_in(self, commit: Commit) -> None:
        # At once, in the worker's thread: it looks at its disk once more after this, so a hint
        # about a device that the index did not know yet is never missed.
        if not self._news.take_in(commit):
            self._chores.add(Chore.LOG)

    def _learn(self, records: Sequence[Record]) -> None:
        self._known.update(records)
        self._index.update(records)
        self._guard.update(records)
        if any(map(_may_have_folder, records)):
            self._chores.add(Chore.LINKS)

    def _wake_disks(self, names: Iterable[str]) -> None:
        for name in names:
            self._disks.add(name)

    def _wake_disks_first(self, names: Sequence[str]) -> None:
        for name in reversed(names):
            self._disks.add(name, first=True)

    def _wake_after_echo(self, name: str) -> None:
        """Have a disk looked at: now, or when what its last pass did has been told of."""
        passed_s = self._byre.clock.monotonic_s() - self._passed_s.get(name, -ECHO_S)
        if self._disks.is_in_work(name) or passed_s < ECHO_S:
            self._look_later(name)
        else:
            self._disks.add(name)

    def _look_later(self, name: str) -> None:
        self._late.add(name)
        self._chores.add_after(Chore.LOOK, ECHO_S)

    def _tell(self, name: str, how: Settled) -> None:
        """Say how a pass ended, when there is something to say, and watch whom it waits for."""
        self._passed_s[name] = self._byre.clock.monotonic_s()
        if how.is_done:
            self._look_later(name)
        held, before = how.held, self._waits.pop(name, "")
        if held is None:
            self._releases.forget(name)
        else:
            self._waits[name] = how.why
            self._releases.watch(name, Path(held.node), held.device, held.holders)
        if how.again_s is not None and not how.is_done and before != how.why:
            self._log.warning(
                "not there yet", disk=name, why=how.why, again_s=round(how.again_s, 3)
            )


def _may_have_folder(record: Record) -> bool:
    """Tell whether a folder for a link may be there; in a transition it is yet to be made."""
    return record.in_flight is None and bool(record.link or "link" in record.spec)

"""Waiting until disks are what is desired of them, and doing the work meanwhile if nobody does.

May be imported by the API only.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final, Protocol

from reconciler.clock import Clock
from reconciler.config import Settings
from reconciler.lock import RootLock
from reconciler.outcome import Waited, failed_for_good, is_there, not_seen
from reconciler.reconcile import Reconciler, Settled
from reconciler.watch.follow import LogFollower
from reconciler.workers import Workers
from reconciler.workqueue import WorkQueue
from statemachine import standing
from statemachine.errors import DeadlinePassed, NoSuchDisk
from statemachine.eventlog import EventLog
from statemachine.record import Record
from statemachine.standing import Standing

FOLLOW_S: Final = 0.5
"""How often a waiting process looks whether the reconciler that works for it is still there."""
LOOK_NS: Final = 3_000_000_000
"""How long a reconciler has to look at a disk that is tried again, before it counts as well."""
MANY: Final = 8
REST_EACH_S: Final = 0.005
REST_S_MAX: Final = 0.1
"""Who waits for that many disks rests between two looks at the log, longer the more there are."""
IDLE_S: Final = 0.01
"""How long a process that works itself rests between looks at what is still missing."""


class OpenRoot(Protocol):
    """What waiting needs of `api.Byre`."""

    log: EventLog
    clock: Clock
    lock: RootLock
    settings: Settings

    def get(self, name: str) -> Record:
        """Return the record of a disk."""

    def reconciler(self) -> Reconciler:
        """Return a reconciler; the lock must be held."""

    def following(self) -> AbstractContextManager[LogFollower]:
        """Have a follower of the log."""


class _Awaited:
    """The disks that are waited for: judged again only where the log has news of them.

    Each commit wakes who waits. To read two hundred records at each of the hundreds of commits that
    bring them up would take longer than that.

    Args:
        log: where they are.
        names: declared disks.

    Raises:
        NoSuchDisk: one was never declared.
    """

    def __init__(self, log: EventLog, names: list[str]) -> None:
        self._log = log
        self._standings = {each.name: each for each in standing.of(log, names)}
        for name in names:
            if name not in self._standings:
                raise NoSuchDisk(name)
        self._names = names
        self._seq = max((each.seq for each in self._standings.values()), default=0)
        self._open: set[str] = set()
        """Those that may still get there, and are not there."""
        self._recovered: set[str] = set()
        for each in self._standings.values():
            self._judge(each)

    @property
    def rest_s(self) -> float:
        """How long to let news gather: with many disks hardly any commit is the last one."""
        count = len(self._open)
        return min(count * REST_EACH_S, REST_S_MAX) if count >= MANY else 0.0

    def read_news(self) -> None:
        """Judge again what was changed since it was read."""
        for each in standing.since(self._log, self._seq):
            self._seq = max(self._seq, each.seq)
            if each.name in self._standings:
                self._standings[each.name] = each
                self._judge(each)

    def are_decided(self, now_ns: int) -> bool:
        """Tell whether each is there or has failed for good, and was looked at if tried again.

        When a person has a disk tried again its fault is forgotten, and whoever reconciles may not
        have looked yet; when all is well nothing more is written, so it is a matter of time.
        """
        if self._open:
            return False
        tried_again = (self._standings[name].read() for name in self._recovered)
        recent = (record for record in tried_again if now_ns - record.updated_at < LOOK_NS)
        return all(map(failed_for_good, recent))

    def records(self) -> list[Record]:
        """Return the records of all, in their order, as they were judged."""
        return [self._standings[name].read() for name in self._names]

    def _judge(self, each: Standing) -> None:
        (self._recovered.add if each.was_recovered else self._recovered.discard)(each.name)
        is_open = each.is_in_flight
        if not is_open:
            record, boot_id = each.read(), self._log.boot_id
            is_open = not is_there(record, boot_id=boot_id) and failed_for_good(record) is None
        (self._open.add if is_open else self._open.discard)(each.name)


class Waiting:
    """One call of `wait`."""

    def __init__(self, byre: OpenRoot, names: list[str], timeout_s: float) -> None:
        self._byre = byre
        self._names = names
        self._give_up_s = byre.clock.monotonic_s() + timeout_s
        self._unseen_yet: set[str] = set()
        """What this process works on and could not look at; what the log says is not enough."""

    def run(self) -> list[Waited]:
        """Wait for whoever works on the root, and be that if nobody is."""
        with self._byre.following() as follower:
            follower.look()  # what was told before is read now, and wakes nobody
            awaited, next_try_s = _Awaited(self._byre.log, self._names), 0.0
            while (left_s := self._left_s()) > 0:
                # Not at each commit that wakes it: those tell that somebody is at work.
                if (now_s := self._byre.clock.monotonic_s()) >= next_try_s:
                    if self._work():
                        break
                    next_try_s = now_s + FOLLOW_S
                if awaited.are_decided(self._byre.clock.now_ns()):
                    # By this very look: a moment later a repair may be in flight again.
                    return list(map(self._answer, awaited.records()))
                follower.wait(min(left_s, FOLLOW_S))
                if (rest_s := min(awaited.rest_s, self._left_s())) > 0:
                    self._byre.clock.sleep_s(rest_s)
                    follower.look()  # what was told meanwhile is read with the rest
                awaited.read_news()
        return [self._answer(self._byre.get(name)) for name in self._names]

    def work(self, reconciler: Reconciler) -> list[Waited]:
        """Look at all of them, whether they seem to be there or not; the lock is held."""
        self._drive(reconciler, self._names, gives_way=False)
        return [self._answer(self._byre.get(name)) for name in self._names]

    def _left_s(self) -> float:
        return self._give_up_s - self._byre.clock.monotonic_s()

    def _missing(self) -> list[Record]:
        records = map(self._byre.get, self._names)
        return [record for record in records if not self._is_there(record)]

    def _is_there(self, record: Record) -> bool:
        return is_there(record, boot_id=self._byre.log.boot_id)

    def _work(self) -> bool:
        """Do the work, to the end, if nobody else does; False if somebody else does the rest."""
        byre = self._byre
        if not byre.lock.try_acquire():
            return False
        try:
            return self._drive(byre.reconciler(), self._names, gives_way=True)
        finally:
            byre.lock.release()

    def _drive(self, reconciler: Reconciler, names: list[str], *, gives_way: bool) -> bool:
        """Work on disks until no more can be done; False if somebody else is to go on with it."""
        if not names:
            return True
        byre, self._unseen_yet = self._byre, set(names)
        queue: WorkQueue[str] = WorkQueue(byre.clock)
        workers = Workers(
            queue,
            reconciler.reconcile,
            min(int(byre.settings.workers), len(names)),
            settled=self._note_look,
        )
        for name in names:
            queue.add(name)
        workers.start()
        try:
            while (left_s := self._left_s()) > 0 and self._is_due():
                if gives_way and byre.lock.is_wanted:
                    self._unseen_yet = set()
                    return False
                queue.wait_idle(min(left_s, FOLLOW_S))
                byre.clock.sleep_s(min(left_s, IDLE_S))
                if workers.damage is not None:
                    raise workers.damage
        finally:
            queue.shut_down(drain=False)
            workers.join()
        return True

    def _note_look(self, name: str, how: Settled) -> None:
        if how.was_seen:
            self._unseen_yet.discard(name)

    def _is_due(self) -> bool:
        """Tell whether a disk may still get there; old failures count once tried again."""
        if self._unseen_yet:
            return True
        return not all(map(failed_for_good, self._missing()))

    def _answer(self, record: Record) -> Waited:
        if record.name in self._unseen_yet:
            return not_seen(record)
        if self._is_there(record):
            return Waited(record=record, exit_code=0)
        failed = failed_for_good(record)
        if failed is not None:
            return failed
        failure = record.failure
        why = f": {failure.message}" if failure else ""
        if record.frozen is not None:
            why = f", and frozen: {record.frozen.message}"
        return Waited(
            record=record,
            exit_code=DeadlinePassed.exit_code,
            message=f"still {record.state}, not {record.desired}{why}",
            hint=failure.hint if failure else self._who_works(),
        )

    def _who_works(self) -> str:
        """Name who has the root; it may be stopped, and then nothing goes on."""
        holder = "" if self._byre.lock.is_held else self._byre.lock.holder()
        explain = "`byre explain` says what it waits for"
        return f"{holder} works on this root; {explain}" if holder else explain

"""A throw-away root on a simulated host, and a reconciler that is driven by one thread.

Every disk has a time at which it is due for a look, as in the daemon's queue; whoever wants it
looked at earlier wakes it. A pass that ends with an error of byre's is tried again later, a
process that dies is started again. May be imported by the package only.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

import attrs

from reconciler.chaos.log import FragileLog, new_log
from reconciler.clock import FakeClock
from reconciler.config import Settings
from reconciler.declare import Declarer
from reconciler.kernel.sim import SimCrash, SimKernel
from reconciler.reconcile import Reconciler, Settled
from reconciler.root import Root
from reconciler.workers import AFTER_ERROR_S
from statemachine.errors import ByreError, LogDamaged
from statemachine.names import LOG_NAME
from statemachine.payloads import Requester
from statemachine.record import Record
from statemachine.units import Bytes

ROOT: Final = Path("/var/lib/byre")
"""Where the root's files are on the simulated host; the log alone is a real file."""
LINKS: Final = Path("/srv/vm")
BASES: Final = (Path("/srv/images/one.ext4"), Path("/srv/images/two.ext4"))
MIB: Final = 2**20
ROOM: Final = Bytes(1024 * MIB)
STARTS_MAX: Final = 100
"""How often a start may fail before it is a finding; more than there are faults for it."""
ROUNDS_MAX: Final = 400
LEAST_S: Final = 0.001
"""Time never stands still between two rounds."""
PREFIX: Final = "byre-"

_SOMEBODY: Final = Requester(uid=1000, user="chaos", pid=4711, command="byre chaos")


class NotAtRest(Exception):
    """The reconciler still has something to do after more rounds than any repair takes."""


@attrs.define(kw_only=True)
class Counts:
    """What a run did, in figures."""

    passes: int = 0
    crashes: int = 0
    starts: int = 0
    errors: int = 0
    """Passes that ended with an error of byre's and were tried again."""


class World:
    """One run's host, root and reconciler.

    Args:
        folder: where the log is; empty.
        seed: of all dice.
        disks: how many names there are.
    """

    def __init__(self, folder: Path, *, seed: int, disks: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self.clock = FakeClock(autojump=True)
        self.kernel = SimKernel(self.clock, reuse_inodes=self.dice.choice((True, False)))
        self.root = Root(ROOT)
        self.kernel.mount(ROOT, ROOM, reflink=self.dice.choice((True, False)))
        for number, base in enumerate(BASES, 1):
            self.kernel.make_file(base, number * MIB, f"base {number}".encode())
        self.kernel.make_folder_by_hand(LINKS)
        self.names = tuple(f"sb-{number}" for number in range(1, disks + 1))
        self.counts = Counts()
        self.settings = Settings(attempts_max=6)
        self._jitter = random.Random(seed).random  # noqa: S311
        self._log_path = folder / LOG_NAME
        self._log_path.write_bytes(new_log())
        self._due: dict[str, float] = {}
        self._whys: dict[str, str] = {}
        """Why each disk was looked at again, or not."""
        self.log = self._open()
        self.reconciler = self._started()

    def close(self) -> None:
        """Close the log."""
        self.log.close()

    # --- the process -------------------------------------------------------------------------

    def restart(self) -> None:
        """Go on as a new process; it may die as well, and is then started once more."""
        self.log.close()
        self.kernel.faults.revive()
        self.log = self._open()
        self.reconciler = self._started()

    def died(self) -> None:
        """Count a crash, and start the next process."""
        self.counts.crashes += 1
        self.restart()

    def _open(self) -> FragileLog:
        boot_id = self.kernel.host.boot_id
        faults, clock_ns = self.kernel.faults, self.clock.now_ns
        return FragileLog(self._log_path, faults, boot_id=boot_id, clock_ns=clock_ns)

    def _started(self) -> Reconciler:
        for _ in range(STARTS_MAX):
            made = Reconciler(
                self.log,
                self.kernel,
                self.root,
                settings=self.settings,
                clock=self.clock,
                random=self._jitter,
            )
            self.counts.starts += 1
            try:
                made.begin()
            except SimCrash:
                self.counts.crashes += 1
                self.log.close()
                self.kernel.faults.revive()
                self.log = self._open()
            except LogDamaged:
                raise
            except ByreError:
                self.counts.errors += 1
                self.clock.advance_s(1)
            else:
                self.wake_all()
                return made
        raise NotAtRest(f"the reconciler did not start in {STARTS_MAX} attempts")

    # --- passes ------------------------------------------------------------------------------

    def wake(self, name: str) -> None:
        """Have a disk looked at as soon as somebody works."""
        self._due[name] = self.clock.monotonic_s()

    def wake_all(self) -> None:
        """Have every disk looked at, as the resync does."""
        for record in self.log.records():
            self.wake(record.name)

    def work(self) -> int:
        """Look at every disk that is due, once; returns how many."""
        now_s = self.clock.monotonic_s()
        due = sorted((at_s, name) for name, at_s in self._due.items() if at_s <= now_s)
        for _, name in due:
            self.look_at(name)
        return len(due)

    def look_at(self, name: str) -> None:
        """Make one pass for one disk, with the barrier that a worker has around it."""
        self._due.pop(name, None)
        self.counts.passes += 1
        try:
            settled = self.reconciler.reconcile(name)
        except SimCrash:
            self.died()
            return
        except LogDamaged:
            raise
        except ByreError as error:
            self.counts.errors += 1
            settled = Settled(again_s=AFTER_ERROR_S, why=error.message)
        self._whys[name] = settled.why
        if settled.again_s is not None:
            self._due[name] = self.clock.monotonic_s() + settled.again_s

    def settle(self) -> None:
        """Look at all, and go on with time and passes until nothing is due any more.

        Raises:
            NotAtRest: that takes more rounds than any repair does.
        """
        self.wake_all()
        for _ in range(ROUNDS_MAX):
            if not self._due:
                return
            now_s = self.clock.monotonic_s()
            self.clock.advance_s(max(LEAST_S, min(self._due.values()) - now_s))
            self.work()
        left = "; ".join(f"{name}: {self._whys.get(name)}" for name in sorted(self._due))
        raise NotAtRest(f"not at rest after {ROUNDS_MAX} rounds: {left}")

    # --- asking ------------------------------------------------------------------------------

    def records(self) -> dict[str, Record]:
        """Return all records by name."""
        return {record.name: record for record in self.log.records()}

    def declarer(self) -> Declarer:
        """Return what a command that asks for something is made of."""
        return Declarer(self.log, self.kernel, by=_SOMEBODY, device_prefix=PREFIX)

    def heads(self) -> bool:
        """Toss a coin."""
        return self.dice.choice((True, False))

    def now(self) -> str:
        """Return the time since the start, for people."""
        return f"{self.clock.monotonic_s():.1f}s"

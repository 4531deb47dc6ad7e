"""byre as its users have it: `byre run` in a process of its own, the Python API in this one.

A time is counted from the declaration until `wait` returns, and that is when the outcome is on
disk. `Alone` is the API without a reconciler at work: it takes the lock and does it itself.
May be imported by the package only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from reconciler.api import Byre
from reconciler.bench import programs
from reconciler.bench.results import BenchFailed
from reconciler.bench.stopwatch import LIMIT_S, Busy, cpu_of_s, until, until_quiet
from reconciler.bench.yard import Yard, written_bytes
from reconciler.config import Settings
from reconciler.outcome import is_there
from reconciler.specs import Sourced
from reconciler.watch.follow import LogFollower
from statemachine.machine import Trigger
from statemachine.names import DmUuid
from statemachine.projection import Record
from statemachine.spec import DriverChoice, parse

KEEPER: Final = "keeper"
"""A disk that stays: with it the base's loop does, as the other contestants' do."""
RESYNC_S: Final = 86_400.0
"""As seldom as is allowed: a resync is measured by itself."""
_REASON: Final = "byre bench"


class Client:
    """The API on a root of the yard, as a `Contestant`."""

    name = "byre"

    def __init__(self, yard: Yard, root: str) -> None:
        self._yard = yard
        self.root = yard.folder / root
        self._prefix = f"{yard.prefix}{root}-"
        self.settings = Settings(device_prefix=self._prefix, resync_s=RESYNC_S)
        self.byre = Byre(self.root, kernel=yard.kernel, settings=self.settings)

    def create(self, disk: str) -> None:
        """Declare a disk live and wait."""
        self.byre.ensure(
            disk, base=self._yard.base, driver=DriverChoice.DM_SNAPSHOT, reason=_REASON
        )
        self.wait([disk])

    def pause(self, disk: str) -> None:
        """Declare it paused and wait."""
        self.command([disk], Trigger.PAUSE)

    def restore(self, disk: str) -> None:
        """Declare it live again and wait."""
        self.command([disk], Trigger.RESTORE)

    def remove(self, disk: str) -> None:
        """Declare it removed and wait."""
        self.command([disk], Trigger.REMOVE)

    def create_all(self, disks: Sequence[str]) -> None:
        """Declare many in one go, and wait for all."""
        table = {"base": str(self._yard.base), "driver": str(DriverChoice.DM_SNAPSHOT)}
        specs = parse(
            {"disk": [{"name": disk, **table} for disk in disks]},
            source="the bench",
            folder=self._yard.folder,
        )
        self.byre.apply([Sourced("the bench", spec) for spec in specs], reason=_REASON)
        self.wait(disks)

    def remove_all(self, disks: Sequence[str]) -> None:
        """Declare many removed, and wait for all."""
        self.command(disks, Trigger.REMOVE)

    def command(self, disks: Sequence[str], trigger: Trigger) -> None:
        """Declare what a command asks for, and wait."""
        if disks:
            self.byre.command(disks, trigger, reason=_REASON)
            self.wait(disks)

    def wait(self, disks: Sequence[str]) -> None:
        """Wait for disks; raises BenchFailed if one does not get there."""
        missing = [each for each in self.byre.wait(disks, timeout_s=LIMIT_S) if not each.is_there]
        if missing:
            first = missing[0]
            msg = f"{len(missing)} of {len(disks)}, first {first.record.name}: {first.message}"
            raise BenchFailed(msg, hint=first.hint)

    def by_the_log_s(self, disk: str) -> float:
        """Return how long its last wish took to be met, by the times of the events."""
        record = self.byre.get(disk)
        events = [event for event in self.byre.history(disk) if event.seq >= record.declared_seq]
        return (events[-1].at - events[0].at) / 1e9

    def close(self) -> None:
        """Close the log."""
        self.byre.close()


class Alone(Client):
    """The API with nobody else at work on the root."""

    name = "byre, no daemon"


class Tended(Client):
    """The API with a reconciler at work on the root, in a process of its own."""

    def __init__(self, yard: Yard, root: str = "root") -> None:
        super().__init__(yard, root)
        words = ("--root", self.root, "--device-prefix", self._prefix)
        self._daemon = yard.start(*programs.byre(*words, "run", "--resync", str(int(RESYNC_S))))
        self.pid = self._daemon.pid
        until(self._is_at_work, "the reconciler is at work")
        self.until_quiet()

    def heal(self, disk: str) -> None:
        """Wait until a device that was taken away has been seen as gone, and is there again."""
        after = self.byre.get(disk).version
        self.lose(disk)
        self.healed(disk, after)

    def lose(self, disk: str) -> None:
        """Take a disk's device away behind byre's back, as an operator's slip would."""
        record = self.byre.get(disk)
        uuid = str(DmUuid(record.id, record.generation))
        self._yard.kernel.dm_remove(record.device_name, uuid)

    def healed(self, disk: str, after: int) -> None:
        """Wait until a disk has moved on from a version and is what it should be."""
        with LogFollower(self.byre.log.path) as follower:
            until(
                lambda: follower.wait(0.001) and self._has_moved(disk, after),
                f"{disk} is live again",
            )

    def _has_moved(self, disk: str, after: int) -> bool:
        record = self.byre.get(disk)
        return record.version > after and is_there(record)

    def until_quiet(self) -> Busy:
        """Wait until the reconciler is at rest; returns what it did until then."""
        return until_quiet(lambda: cpu_of_s(self.pid))

    def resync(self) -> Busy:
        """Have everything looked at; returns what that cost."""
        import signal  # placeholder

        self._daemon.signal(signal.SIGHUP)
        return self.until_quiet()

    def cpu_s(self) -> float:
        """Return the CPU time of the reconciler."""
        return cpu_of_s(self.pid)

    def traces(self) -> tuple[int, int]:
        """Return what a reconciler leaves: (newest event, bytes written to disks or the log)."""
        files = sorted(self.root.glob("byre.db*"))
        grown = sum(file.stat().st_mtime_ns for file in files if not file.name.endswith("-shm"))
        del grown
        return self.byre.log.last_seq(), written_bytes(self.pid)

"""byre as its users have it: `byre run` in a process of its own, the Python API in this one.

A time is counted from the declaration until `wait` returns, and that is when the outcome is on
disk. `Alone` is the API without a reconciler at work: it takes the lock and does it itself.
May be imported by the package only.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from reconciler.api import Byre
from reconciler.bench import programs
from reconciler.bench.results import BenchFailed
from reconciler.bench.stopwatch import (
    LIMIT_S,
    Busy,
    cpu_of_s,
    insist,
    now_s,
    until,
    until_quiet,
)
from reconciler.bench.yard import Yard, end, written_bytes
from reconciler.config import Settings
from reconciler.outcome import is_there
from reconciler.specs import Sourced
from reconciler.watch.follow import LogFollower
from statemachine.events import EventType
from statemachine.machine import Trigger
from statemachine.names import DmUuid
from statemachine.spec import DriverChoice
from statemachine.specreader import parse

KEEPER: Final = "keeper"
"""A disk that stays: with it the base's loop does, as the other contestants' do."""
RESYNC_S: Final = 86_400.0
"""As seldom as is allowed: a resync is measured by itself."""
_REASON: Final = "byre bench"
_LOOK_S: Final = 0.005
"""A notice of the log comes with the write, and the commit can be read a moment later."""


@attrs.frozen(kw_only=True)
class Traces:
    """What a reconciler has left at a moment: events, and what it wrote."""

    newest: int
    written_bytes: int
    files: tuple[tuple[int, int, int], ...]
    """Inode, mtime and size of each file of the root."""

    def events_since(self, before: Traces) -> int:
        """Return how many events there are more."""
        return self.newest - before.newest

    def bytes_since(self, before: Traces) -> int:
        """Return how many bytes were written.

        What goes to a file system in memory is not counted by the kernel, so files that are not
        what they were count with their whole size.
        """
        changed = set(self.files) - set(before.files)
        counted = self.written_bytes - before.written_bytes
        return max(counted, sum(size for _, _, size in changed))


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

    def traces(self, pid: int) -> Traces:
        """Return what a process that reconciles this root has left so far."""
        files = [path.stat() for path in sorted(self.root.iterdir()) if not _is_shared(path)]
        return Traces(
            newest=self.byre.log.last_seq(),
            written_bytes=written_bytes(pid),
            files=tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in files),
        )

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

    def heal_s(self, disk: str) -> float:
        """Take a device away behind byre's back; returns how long until it is there again."""
        record = self.byre.get(disk)
        uuid = str(DmUuid(record.id, record.generation))
        with LogFollower(self.byre.log.path) as follower:
            insist(lambda: self._yard.kernel.dm_remove(record.device_name, uuid))
            began_s = now_s()
            while not self._is_healed(disk, record.version):
                follower.wait(_LOOK_S)
                if now_s() - began_s > LIMIT_S:
                    raise BenchFailed(f"{disk} was not made live again within {LIMIT_S:g} s")
            return now_s() - began_s

    def _is_healed(self, disk: str, version: int) -> bool:
        record = self.byre.get(disk)
        return record.version > version and is_there(record)

    def until_quiet(self, *, quiet_s: float = 0.5) -> Busy:
        """Wait until the reconciler is at rest; returns what it did until then."""
        return until_quiet(self.cpu_s, quiet_s=quiet_s)

    def look_at_all(self) -> Busy:
        """Have a pass made for every disk, by SIGHUP; returns what that cost."""
        self._daemon.signal(signal.SIGHUP)
        return self.until_quiet(quiet_s=1.0)

    def cpu_s(self) -> float:
        """Return the CPU time that the reconciler has used."""
        return cpu_of_s(self.pid)

    def end(self) -> None:
        """End the reconciler; the disks stay as they are."""
        end(self._daemon)

    def _is_at_work(self) -> bool:
        if not self._daemon.is_alive:
            raise BenchFailed(f"the reconciler ended: {self._daemon.said()}")
        return any(e.type == EventType.RECONCILER_STARTED for e in self.byre.log.events())


def _is_shared(path: Path) -> bool:
    """Tell whether a file is SQLite's index of the WAL, which readers write to as well."""
    return path.name.endswith("-shm")

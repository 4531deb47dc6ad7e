"""The guard: watches the room that live disks write into, and wakes them before it is gone.

device-mapper tells of a lost snapshot, not of one that fills (kernel fact 19), and no file system
tells that it fills. So this looks by itself: at the free space with one statvfs, and at the CoW
files by their allocated blocks, which costs a stat each and opens nothing. The nearer the end, the
sooner the next look, as if every writer were as fast as memory. It decides nothing: it wakes
disks, and `protect` decides when they are looked at.

What it does not do: without it (a lone `--wait`) nothing is watched. May be imported by daemon.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import attrs
import structlog

from reconciler.clock import Clock
from reconciler.config import Settings
from reconciler.drivers.cow_room import bound, cow_size, freeze_above, grow_above
from reconciler.kernel.port import Kernel
from reconciler.protect import NO_SPACE
from reconciler.space import Space, SpaceLevel
from statemachine.errors import ByreError
from statemachine.machine import LIVE
from statemachine.record import Record
from statemachine.spec import DriverChoice

WRITER_BYTES_PER_S: Final = 2 * 2**30
"""How fast room may go: no host writes faster into a file than into memory."""
LOOK_S_MIN: Final = 0.005
LOOK_S_MAX: Final = 5.0
FULL_LOOK_S: Final = 5.0
"""How often the CoW files are looked at that cannot overflow: only for their fill levels, and only
if something was written to the file system at all."""
FROZEN_LOOK_S: Final = 0.05
"""How often while room is critical: for room, and for what is not frozen yet."""

Wake = Callable[[Sequence[str]], None]


@attrs.frozen(kw_only=True)
class _Store:
    """The exception store of one live disk, as its record tells of it."""

    name: str
    path: Path
    size: int
    next_level: int
    """Wake the disk when so many bytes are allocated: the next fill level, or when to grow."""
    can_overflow: bool


class Guard:
    """Watches the file system of the CoW files, and the live CoWs on it. A thread of its own.

    Args:
        kernel: what is asked.
        cows: the folder of the CoW files.
        settings: for the watermarks and the fill levels.
        clock: for when the next look is due.
        wake: has disks looked at, before others.
    """

    def __init__(
        self, kernel: Kernel, cows: Path, settings: Settings, clock: Clock, wake: Wake
    ) -> None:
        self._kernel = kernel
        self._cows = cows
        self._settings = settings
        self._clock = clock
        self._wake = wake
        self._lock = threading.Lock()
        self._stores: dict[str, _Store] = {}
        self._can_overflow: set[str] = set()
        """Those of them that are looked at each time; mostly few, or none."""
        self._waiting: set[str] = set()
        """Disks that are frozen or held back for want of room."""
        self._seqs: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._changed = threading.Event()
        self._stopped = False
        self._was: Space | None = None
        self._is_written = True
        self._full_look_due_s = 0.0
        self._thread = threading.Thread(target=self._run, name="byre-guard", daemon=True)
        self._log = structlog.get_logger("byre.guard")

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End; idempotent."""
        self._stopped = True
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(LOOK_S_MAX)

    def update(self, records: Iterable[Record]) -> None:
        """Take in records of some disks; an older one than is known changes nothing."""
        with self._lock:
            for record in records:
                if record.seq < self._seqs.get(record.name, 0):
                    continue
                self._seqs[record.name] = record.seq
                self._take_in(record)

    def tidy(self) -> None:
        """Forget the disks that have no store that is written to: there is no end to them."""
        with self._lock:
            kept = self._stores.keys() | self._waiting
            self._seqs = {name: seq for name, seq in self._seqs.items() if name in kept}

    def _take_in(self, record: Record) -> None:
        self._waiting.discard(record.name)
        if record.frozen is not None or _waits_for_room(record):
            self._waiting.add(record.name)
        store = self._store_of(record)
        if store is None:
            self._stores.pop(record.name, None)
            self._seen.pop(record.name, None)
            self._can_overflow.discard(record.name)
            return
        self._stores[record.name] = store
        if not store.can_overflow:
            self._can_overflow.discard(record.name)
        elif record.name not in self._can_overflow:
            self._can_overflow.add(record.name)
            self._changed.set()  # it may need a look sooner than the next one is due

    def _store_of(self, record: Record) -> _Store | None:
        if record.state not in LIVE or record.driver != DriverChoice.DM_SNAPSHOT:
            return None
        if record.cow is None:
            return None
        size, spec = record.cow.size.count, record.wanted
        full = cow_size(record.size, spec.chunk_size)
        above = [each for each in self._settings.cow_levels if each > record.cow_level]
        marks = [size * level // 100 for level in above]
        if record.cow.size < bound(spec, record.size):
            marks.append(grow_above(size, spec.chunk_size) + 1)
        elif record.cow.size < full:
            marks.append(freeze_above(size))
        return _Store(
            name=record.name,
            path=record.cow_file,
            size=size,
            next_level=min(marks, default=2 * size),
            can_overflow=record.cow.size < full,
        )

    # --- looking -------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped:
            try:
                wait_s = self.look()
            except ByreError as error:
                self._log.error("cannot look at the room of the disks", error=error.message)
                wait_s = LOOK_S_MAX
            self._changed.wait(wait_s)
            self._changed.clear()

    def look(self) -> float:
        """Look once, and wake whom it concerns; returns in how many seconds to look again."""
        before, space = self._was, self._free()
        is_at_rest = space is before and not (self._is_written or self._can_overflow)
        if is_at_rest and space.level is not SpaceLevel.CRITICAL:
            return _next_look_s(space)  # nothing was written, so there is nothing else to be seen
        self._was = space
        self._is_written |= before is not space
        self._look_at_space(before, space)
        now_s = self._clock.monotonic_s()
        if self._is_written and now_s >= self._full_look_due_s:
            self._is_written = False
            self._full_look_due_s = now_s + FULL_LOOK_S
            self._look_at_stores(can_overflow=False)
        return min(_next_look_s(space), self._look_at_stores(can_overflow=True))

    def _free(self) -> Space:
        """Return the room there is: the very same object while nothing was written."""
        free, was = self._kernel.free_space(self._cows), self._was
        if was is not None and (free.available, free.total) == (was.available, was.total):
            return was
        return self._settings.watermarks.judge(available=free.available, total=free.total)

    def _look_at_space(self, before: Space | None, space: Space) -> None:
        if before is space and space.level is not SpaceLevel.CRITICAL:
            return
        if before is None or before.level is not space.level:
            self._tell(space)
        if space.level is SpaceLevel.CRITICAL:
            self._wake(self._writers_first())
        elif before is None or space.available > before.available:
            with self._lock:
                waiting = sorted(self._waiting)
            self._wake(waiting)

    def _tell(self, space: Space) -> None:
        say = {SpaceLevel.PLENTY: self._log.info, SpaceLevel.LOW: self._log.warning}
        say.get(space.level, self._log.error)(f"room for disks: {space.level}", room=str(space))

    def _writers_first(self) -> Sequence[str]:
        """Return the live disks that are not frozen yet, those first that wrote most of late."""
        with self._lock:
            stores = [s for s in self._stores.values() if s.name not in self._waiting]
        grown = {
            store.name: self._kernel.allocated(store.path).count - self._seen.get(store.name, 0)
            for store in stores
        }
        return sorted(grown, key=lambda name: (-grown[name], name))

    def _look_at_stores(self, *, can_overflow: bool) -> float:
        """Wake the disks that filled past a mark; returns when the next look is due, in seconds."""
        with self._lock:
            # Not all that there are, each time that a thousand of them are at rest.
            names = self._can_overflow if can_overflow else self._stores.keys() - self._can_overflow
            stores = [self._stores[name] for name in sorted(names - self._waiting)]
        soonest_s, due = LOOK_S_MAX, []
        for store in stores:
            used = self._kernel.allocated(store.path).count
            if used >= store.next_level and used != self._seen.get(store.name):
                due.append(store.name)
            self._seen[store.name] = used
            soonest_s = min(soonest_s, _until_s(store.next_level - used))
        self._wake(due)
        return soonest_s


def _next_look_s(space: Space) -> float:
    """Return when room could be gone at the soonest, in seconds."""
    if space.level is SpaceLevel.CRITICAL:
        return FROZEN_LOOK_S
    return _until_s(space.available.count - space.critical.count)


def _until_s(room: int) -> float:
    return min(max(room / WRITER_BYTES_PER_S, LOOK_S_MIN), LOOK_S_MAX)


def _waits_for_room(record: Record) -> bool:
    return record.failure is not None and record.failure.kind == NO_SPACE

"""Notice that a holder of a disk in use may have let go, so that nobody has to look all the time.

- A process ended: its pidfd can be read (pidfd_open(2), Linux 5.3).
- A process closed the device: inotify on the very node that it opened, found through /proc/PID/fd,
  so a node in a jail counts as well as the one in /dev.
- A file system was unmounted, or swap turned off: /proc/self/mountinfo and /proc/swaps tell of
  a change by poll(2), POLLPRI (proc(5)).
- A block device above went: uevents and dm events tell of it; `told` takes their names in.

A notice comes a moment before the kernel has closed the device: __fput() in fs/file_table.c tells
inotify before it releases, and a dm device's event comes before its table lets go. So each notice
becomes a row of hints, and another notice begins a new row a second later at the soonest: a process
that opens and closes all day wakes a disk four times a second at most.

What this module does not do: it decides nothing and asks nobody for holders. Not noticed are mounts
of other mount namespaces, and whoever had a loop device open for reading only (byre itself opens
those to look at them). What is not noticed, or beyond the bounds, is found by the daemon's poll.
May be imported by daemon. Privilege: root, or the same user as the holders.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import attrs

from reconciler.clock import Clock
from reconciler.kernel.holders import nodes_of
from reconciler.kernel.loopdev import LOOP_MAJOR
from reconciler.watch.hint import Hint, HintKind, Hold, Wake, at_once
from reconciler.watch.inotify import Change, Inotify
from reconciler.watch.thread import EpollThread
from statemachine.observed import DeviceNumber, Holder

ECHOES_S: Final = (0.0, 0.05, 0.25, 1.0, 4.0, 15.0)
"""When to hint after a notice: at once, and while the kernel is still closing the device, which
takes as long as a file system that is unmounted has pages to write."""
REST_S: Final = 1.0
"""How soon after a notice another one counts."""
PROCESSES_MAX: Final = 512
"""How many processes are watched at once, each by a descriptor."""
NODES_MAX: Final = 2048
"""How many nodes are watched at once; fs.inotify.max_user_watches bounds, too."""

_TABLES: Final = ("/proc/self/mountinfo", "/proc/swaps")


@attrs.define(eq=False)
class Echoes:
    """When to hint at one disk: `notice` begins a row of hints, soon if the last is too young."""

    due_s: list[float] = attrs.field(factory=list)
    _begun_s: float = float("-inf")

    def notice(self, now_s: float) -> None:
        """Plan the hints after a notice; a second notice before they began adds nothing."""
        if self._begun_s > now_s:
            return
        self._begun_s = max(now_s, self._begun_s + REST_S)
        before = [due_s for due_s in self.due_s if due_s < self._begun_s]
        self.due_s = before + [self._begun_s + after_s for after_s in ECHOES_S]

    def take(self, now_s: float) -> bool:
        """Tell whether a hint is due by now; those that are due are done."""
        count = len(self.due_s)
        self.due_s = [due_s for due_s in self.due_s if due_s > now_s]
        return len(self.due_s) < count


@attrs.define(eq=False)
class _Waiting:
    """What is watched for one disk."""

    processes: dict[int, int] = attrs.field(factory=dict)
    """pid → its pidfd; -1 when it cannot be watched, or has ended."""
    nodes: set[int] = attrs.field(factory=set)
    """Watch descriptors of inotify."""
    things: frozenset[str] = frozenset()
    """Names of block devices above, by which other watchers may tell of them."""
    waits_for_table: bool = False
    """Whether a mount or swap is among the holders."""
    echoes: Echoes = attrs.field(factory=Echoes)


class ReleaseWatcher:
    """A `Watcher` on the holders of disks in use, which `watch` names; by one thread."""

    name = "releases"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._wake: Wake = lambda _: None
        self._epoll: select.epoll | None = None
        self._kick = -1
        self._inotify: Inotify | None = None
        self._tables: dict[int, IO[bytes]] = {}
        self._thread: EpollThread | None = None
        self._disks: dict[str, _Waiting] = {}
        self._refused = ""

    @property
    def unavailable(self) -> str:
        """Why it sees nothing, or not everything; "" when all is well."""
        return (self._thread.failure if self._thread else "") or self._refused

    def start(self, wake: Wake, hold_s: Hold = at_once) -> None:  # noqa: ARG002 - it tells of others
        """See `Watcher.start`; nothing is watched before `watch`."""
        try:
            self._epoll = select.epoll()
            self._kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._epoll.register(self._kick, select.EPOLLIN)
        except OSError as error:
            self._close()
            self._refused = f"nothing can be waited for: {error}"
            return
        self._wake = wake
        self._open_eyes(self._epoll)
        self._thread = EpollThread("byre-releases", self._epoll, self._ready, self._idle_s)
        self._thread.start()

    def _open_eyes(self, epoll: select.epoll) -> None:
        try:
            self._inotify = Inotify()
            epoll.register(self._inotify.fileno(), select.EPOLLIN)
        except OSError as error:
            self._refused = f"inotify cannot be used: {error.strerror or error}"
        for path in _TABLES:
            with contextlib.suppress(OSError):  # a kernel without swap, a /proc that is hidden
                table = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed by stop
                self._tables[table.fileno()] = table
                epoll.register(table.fileno(), select.EPOLLPRI)

    def stop(self) -> None:
        """See `Watcher.stop`."""
        thread, self._thread = self._thread, None
        if thread is not None and thread.stop():
            with self._lock:
                for name in list(self._disks):
                    self._drop(self._disks.pop(name))
                self._close()

    def _close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
        for table in self._tables.values():
            table.close()
        if self._kick >= 0:
            os.close(self._kick)
        if self._epoll is not None:
            self._epoll.close()
        self._inotify, self._epoll, self._kick = None, None, -1
        self._tables.clear()

    # --- what to watch -----------------------------------------------------------------------

    def watch(self, disk: str, node: Path, device: DeviceNumber, holders: Sequence[Holder]) -> None:
        """Watch the holders of a disk, besides those that are watched for it already.

        If anything new is watched, the disk is hinted at once: its holder may have let go since
        it was seen. Anything that cannot be watched is left to the poll.

        Args:
            disk: its name.
            node: the kernel's own node of its device.
            device: the device.
            holders: as they were seen a moment ago.
        """
        with self._lock:
            if self._epoll is None:
                return
            is_new = disk not in self._disks
            waiting = self._disks.setdefault(disk, _Waiting())
            pids = [each.pid for each in holders if each.kind == "process" and each.pid]
            for pid in pids:
                is_new |= self._watch_process(self._epoll, waiting, pid)
            paths = [node, *(path for pid in pids for path in nodes_of(pid, device))]
            is_new |= self._watch_nodes(waiting, paths, _change_of(device))
            waiting.things = frozenset(_things(holders))
            waiting.waits_for_table = any(each.kind in ("mount", "swap") for each in holders)
        if is_new:
            self._wake(self._hint(disk))

    def forget(self, disk: str) -> None:
        """Watch nothing for a disk any more; one that is not watched for is fine."""
        with self._lock:
            waiting = self._disks.pop(disk, None)
            if waiting is not None:
                self._drop(waiting)

    def told(self, thing: str) -> None:
        """Take in that something happened to a block device, by its kernel's or its dm name."""
        with self._lock:
            waiting = [each for each in self._disks.values() if thing in each.things]
            self._notice(waiting)
            if waiting and self._kick >= 0:
                os.eventfd_write(self._kick, 1)

    def _watch_process(self, epoll: select.epoll, waiting: _Waiting, pid: int) -> bool:
        """Watch for the end of a process; True if it is a new one, whether it can be or not."""
        if pid in waiting.processes:
            return False
        waiting.processes[pid] = -1
        if sum(len(each.processes) for each in self._disks.values()) > PROCESSES_MAX:
            return False
        with contextlib.suppress(OSError):  # it has ended, or the kernel is older than 5.3
            waiting.processes[pid] = os.pidfd_open(pid)
            epoll.register(waiting.processes[pid], select.EPOLLIN)
        return True

    def _watch_nodes(self, waiting: _Waiting, paths: Iterable[Path], change: Change) -> bool:
        count = len(waiting.nodes)
        for path in paths:
            room = sum(len(each.nodes) for each in self._disks.values()) < NODES_MAX
            if self._inotify is not None and room:
                with contextlib.suppress(OSError):  # closed meanwhile, or no watches are left
                    waiting.nodes.add(self._inotify.watch_file(path, change))
        return len(waiting.nodes) > count

    def _drop(self, waiting: _Waiting) -> None:
        for descriptor in waiting.processes.values():
            if descriptor >= 0:
                os.close(descriptor)  # which takes it out of the epoll set
        for watch in waiting.nodes:
            if self._inotify is not None:
                self._inotify.forget(watch)

    # --- what happened -----------------------------------------------------------------------

    def _ready(self, descriptors: list[int]) -> None:
        with self._lock:
            for descriptor in descriptors:
                self._notice(list(self._noticed_by(descriptor)))
            now_s = self._clock.monotonic_s()
            due = [disk for disk, each in self._disks.items() if each.echoes.take(now_s)]
        for disk in due:
            self._wake(self._hint(disk))

    def _noticed_by(self, descriptor: int) -> Iterator[_Waiting]:
        """Find out whose holders a descriptor tells of, and take what it says."""
        if descriptor == self._kick:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(descriptor)
        elif descriptor in self._tables:
            yield from (each for each in self._disks.values() if each.waits_for_table)
        elif self._inotify is not None and descriptor == self._inotify.fileno():
            yield from self._noticed_by_inotify(self._inotify)
        else:
            yield from self._ended(descriptor)

    def _noticed_by_inotify(self, inotify: Inotify) -> Iterator[_Waiting]:
        notices = inotify.read()
        gone = {notice.watch for notice in notices if notice.gone}
        touched = {notice.watch for notice in notices}
        is_lost = any(notice.lost for notice in notices)
        for each in self._disks.values():
            if is_lost or each.nodes & touched:
                yield each
            each.nodes -= gone
        for watch in gone:
            inotify.forget(watch)

    def _ended(self, descriptor: int) -> Iterator[_Waiting]:
        for each in self._disks.values():
            for pid, known in each.processes.items():
                # Asked again: the number may have gone to another process since it was told of.
                if known == descriptor and _can_be_read(descriptor):
                    os.close(descriptor)
                    each.processes[pid] = -1
                    yield each
                    return

    def _notice(self, waiting: Iterable[_Waiting]) -> None:
        for each in waiting:
            each.echoes.notice(self._clock.monotonic_s())

    def _idle_s(self) -> float | None:
        with self._lock:
            due = [due_s for each in self._disks.values() for due_s in each.echoes.due_s]
        return max(0.0, min(due) - self._clock.monotonic_s()) if due else None

    def _hint(self, disk: str) -> Hint:
        return Hint(source=self.name, kind=HintKind.DISK, name=disk)


def _can_be_read(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _change_of(device: DeviceNumber) -> Change:
    """Return what to watch a node for; byre's own looks at a loop are closed without a write."""
    return Change.WRITTEN if device.major == LOOP_MAJOR else Change.CLOSED


def _things(holders: Iterable[Holder]) -> Iterator[str]:
    for holder in holders:
        if holder.kind in ("dm", "loop"):
            yield holder.name
            yield Path(holder.name).name

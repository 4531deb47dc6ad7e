"""Wait in a second process until the event log has changed: `--follow`, `--watch`, `--wait`.

By inotify where it can be had, else by looking each 0.2 s. What is watched is `<root>/head`: a
commit writes it once, when the commit can be read, and the WAL many times before. A change is a
hint: read the log by its last `seq` and be prepared to find nothing new. To lose nothing, make the
follower first, then read, then wait, and read and wait again.

What this module does not do: it opens no database, and it looks at no content. Reading the log by
SQLite makes and deletes `byre.db-wal` without writing to it; that alone is no change, or a reader
would wake itself for ever.
May be imported by the API, bench and cli. Needs no privilege but reading the root folder.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

import attrs

from reconciler.clock import Clock, SystemClock, checked_wait_s
from reconciler.watch.inotify import Change, Inotify, Told
from statemachine.head import HEAD_NAME

REREAD_FIRST_S: Final = 0.02
REREAD_FACTOR: Final = 4
REREAD_LAST_S: Final = 5.0
"""When the log is read again after a notice, for the commit that the notice was early for."""
POLL_S: Final = 0.2
"""How often the files are looked at without inotify."""
RECHECK_S: Final = 5.0
"""How often they are looked at with it: a folder may be replaced, a write may give no notice."""
_RACY_NS: Final = 100_000_000
"""A file written this recently may be written again without its times or size changing.

The kernel's file times move with its timer tick, 1 to 10 ms (before multigrain times, Linux 6.13).
The same trouble and answer as git's: Documentation/technical/racy-git.txt.
"""


@attrs.frozen(kw_only=True)
class _Sign:
    """What tells one state of a file from another, from the outside."""

    inode: int
    size: int
    mtime_ns: int
    racy: bool


Signs = tuple[_Sign | None, ...]


class LogFollower:
    """Sees changes of one log from the moment it is made. Not thread safe; close it.

    Args:
        path: the database file, `<root>/byre.db`; neither it nor its folder has to exist yet.
        clock: measures the timeouts.
        use_inotify: False is for file systems where it is of no use, and for tests.
        others_only: leave out what is noted by an object of this process that keeps the head open
            (`statemachine.head`).
    """

    def __init__(
        self,
        path: Path,
        clock: Clock | None = None,
        *,
        use_inotify: bool = True,
        others_only: bool = False,
    ) -> None:
        self._clock = clock if clock is not None else SystemClock()
        self._path = path
        self._names = (path.name, f"{path.name}-wal")
        self._use_inotify = use_inotify
        self._change = Change.WRITTEN if others_only else Change.MODIFIED
        self.watches = 1
        """How many there were; another one has another descriptor, perhaps of the same number."""
        self._inotify: Inotify | None = None
        self._has_head = False
        """Whether the head itself is watched; else, while it is missing, its folder."""
        self.was_noted = False
        """Whether it was the head that told of the last change: a commit that says so itself."""
        self._poll = select.poll()
        self._signs: Signs | None = None
        """None when there was a notice since they were looked at."""
        self._recheck_s = 0.0
        self._watch()
        self._look()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def by_inotify(self) -> bool:
        """Whether changes are told by the kernel; else they are found within POLL_S."""
        return self._inotify is not None

    def wait(self, timeout_s: float) -> bool:
        """Block until the log has changed since the last wait, or since this was made.

        Args:
            timeout_s: seconds, 0 to `clock.WAIT_S_MAX`; 0 only looks.

        Returns:
            True when it has, or may have, changed; False when the time has passed.

        Raises:
            ValueError: the timeout is out of range.
        """
        give_up_s = self._clock.monotonic_s() + checked_wait_s(timeout_s)
        remaining_s = timeout_s
        while True:
            if self._inotify is not None:
                self._poll.poll(min(remaining_s, RECHECK_S) * 1000)
            if self.look():
                return True
            remaining_s = give_up_s - self._clock.monotonic_s()
            if remaining_s <= 0:
                return False
            if self._inotify is None:
                self._clock.sleep_s(min(remaining_s, POLL_S))

    def fileno(self) -> int | None:
        """Return what to poll for reading, None without inotify; `look` may change it."""
        return None if self._inotify is None else self._inotify.fileno()

    def look(self) -> bool:
        """Tell whether the log has changed since the last look; as `wait`, without waiting."""
        told = self._told()
        self.was_noted = told and self._inotify is not None and self._has_head
        if self._inotify is not None:
            if told:
                self._signs = None
                return True
            if self._clock.monotonic_s() < self._recheck_s:
                return False
        before = self._signs
        if self._look() == before and not told:
            return False
        if self._inotify is None and self._use_inotify:
            self._watch()
            self.watches += 1
        return True

    def close(self) -> None:
        """Give the inotify instance back. Idempotent."""
        if self._inotify is not None:
            self._poll.unregister(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None

    def _watch(self) -> None:
        if not self._use_inotify:
            return
        self._inotify, self._has_head = _watching(self._path, self._change)
        if self._inotify is not None:
            self._poll.register(self._inotify.fileno(), select.POLLIN)

    def _told(self) -> bool:
        """Tell whether there was a notice; one that the head came or went ends the watch."""
        if self._inotify is None:
            return False
        if self._has_head:
            told = self._inotify.drain()
            moved, changed = told is Told.GONE, told is Told.SOMETHING
        else:
            notices = self._inotify.read()
            moved = any(notice.gone or notice.name == HEAD_NAME for notice in notices)
            names = ("", *self._names)
            changed = any(notice.lost or notice.name in names for notice in notices)
        if moved:
            self.close()
        return moved or changed

    def _look(self) -> Signs:
        """Look at the files, and note what is seen; returns it."""
        signs = tuple(self._sign(self._path.with_name(name)) for name in self._names)
        self._signs, self._recheck_s = signs, self._clock.monotonic_s() + RECHECK_S
        return signs

    def _sign(self, path: Path) -> _Sign | None:
        try:
            status = path.stat()
        except OSError:
            return None
        if status.st_size == 0:
            return None  # SQLite makes an empty write-ahead log just by opening the database
        age_ns = self._clock.now_ns() - status.st_mtime_ns
        return _Sign(
            inode=status.st_ino,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            racy=self._inotify is None and age_ns < _RACY_NS,
        )


def changes(follower: LogFollower, last_seq: Callable[[], int]) -> Iterator[int]:
    """Yield the newest seq of a log, now and whenever there is a newer one, for ever.

    Where no head can be noted, a change is seen by the write, and the commit can be read only after
    its fsync: so after each notice the log is looked at again, soon and then less often.

    Args:
        follower: made before this is called.
        last_seq: reads the newest seq.
    """
    seen, rest_s = -1, REREAD_FIRST_S
    while True:
        seq = last_seq()
        if seq != seen:
            seen = seq
            yield seq
        told = follower.wait(rest_s)
        rest_s = REREAD_FIRST_S if told else min(rest_s * REREAD_FACTOR, REREAD_LAST_S)


def wait_for_change(path: Path, timeout_s: float, clock: Clock | None = None) -> bool:
    """Wait once for a change of the log at `path` from now on; see `LogFollower.wait`.

    What happened before the call is not seen: who reads and waits in turn needs a `LogFollower`.
    """
    with LogFollower(path, clock) as follower:
        return follower.wait(timeout_s)


def _watching(log: Path, change: Change) -> tuple[Inotify | None, bool]:
    """Return what watches a log, if anything can, and whether it watches the head itself."""
    try:
        inotify = Inotify()
    except OSError:
        return None, False
    try:
        try:
            inotify.watch_file(log.with_name(HEAD_NAME), change)
        except OSError:
            inotify.watch_folder(log.parent, Change.MODIFIED)
            return inotify, False
    except OSError:
        inotify.close()
        return None, False
    return inotify, True

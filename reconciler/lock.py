"""One reconciler per root: an flock on a file in the root, held for as long as it works.

The kernel gives the lock back when its holder ends, however it ends, so there is nothing to clean
up after a crash. The file says who holds it, for people; the lock decides.

A command that waits holds it too, when nobody else works for it, and gives way to a reconciler
that comes to stay: who wants the lock says so by a lock on a second file, `<lock>.next`.
May be imported by daemon, the API and cli.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from reconciler.clock import Clock
from statemachine import lockholders
from statemachine.errors import LogUnavailable, RootBusy

PATIENCE_S: Final = 10.0
"""How long a reconciler waits for a command to give way: a transition in flight is ended first."""
_LOOK_S: Final = 0.02
_STAYS: Final = "stays"


class RootLock:
    """The lock of one root. Use as a context manager, or `acquire` and `release`.

    Args:
        path: the lock's file; made, 0600, when missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = path.with_name(f"{path.name}.next")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock or fail at once.

        Raises:
            RootBusy: another reconciler has it; its pid and command are named.
            LogUnavailable: the file cannot be made: read-only, full, or no privilege.
        """
        holder = self._held_by()
        if holder is not None:
            raise self._busy(holder)

    def take_over(self, clock: Clock, *, stays: bool, patience_s: float = PATIENCE_S) -> None:
        """Take the lock, from a command that waits as soon as it has given way.

        Args:
            clock: for the waiting.
            stays: whether it is kept until somebody ends us; then nobody else waits for it.
            patience_s: how long to wait, in seconds.

        Raises:
            RootBusy: another reconciler has it and stays, or nobody gave way in time.
            LogUnavailable: as `acquire`.
        """
        give_up_s = clock.monotonic_s() + patience_s
        with self._wish():
            while (holder := self._held_by(stays=stays)) is not None:
                if _STAYS in holder or clock.monotonic_s() >= give_up_s:
                    raise self._busy(holder)
                clock.sleep_s(_LOOK_S)

    @property
    def is_wanted(self) -> bool:
        """Whether a reconciler waits for whoever has the lock to give way."""
        try:
            descriptor = os.open(self._next, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False  # nobody ever wanted it
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it or wants it more; True when it is ours now.

        Quick: it is asked again and again, and to name the holder takes a look at all locks.

        Raises:
            LogUnavailable: as `acquire`.
        """
        if self._held_by() is not None:
            return False
        if self.is_wanted:
            self.release()
        return self.is_held

    @contextlib.contextmanager
    def _wish(self) -> Iterator[None]:
        """Say that the lock is wanted; when somebody says so already, that does for both."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._next, flags, 0o600)
        except OSError as error:
            raise _unavailable(self._next, error) from error
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(descriptor)

    def _busy(self, holder: str) -> RootBusy:
        named = self.holder() or f"pid {holder.split(maxsplit=1)[0]}"
        msg = f"another reconciler is at work on {self._path.parent}: {named}"
        return RootBusy(msg, hint="stop it first, or choose another --root")

    def _held_by(self, *, stays: bool = False) -> str | None:
        """Take the lock; returns None, or what its holder has written down: its pid first."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise _unavailable(self._path, error) from error
        try:
            _refuse_another_file(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}{f' {_STAYS}' if stays else ''}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            return holder or "unknown"
        except OSError as error:
            os.close(descriptor)
            raise LogUnavailable(f"{self._path}: {error.strerror}") from error
        self._descriptor = descriptor
        return None

    def holder(self) -> str:
        """Return which other process has the lock, in words, for people; "" if none is seen."""
        return "; ".join(lockholders.holders(self._path))

    def release(self) -> None:
        """Give the lock back; idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def _unavailable(path: Path, error: OSError) -> LogUnavailable:
    msg = f"{path}: {error.strerror}"
    return LogUnavailable(msg, hint="choose another state root with --root")


def _refuse_another_file(descriptor: int) -> None:
    """Refuse what was planted before the first start: the lock's file is truncated."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise OSError(errno.EINVAL, "it is no regular file, or has another name as well")

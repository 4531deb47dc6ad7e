"""One reconciler per root: an flock on a file in the root, held for as long as it works.

The kernel gives the lock back when its holder ends, however it ends, so there is nothing to clean
up after a crash. The file says who holds it, for people; the lock decides.
May be imported by daemon, the API and cli.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from statemachine import lockholders
from statemachine.errors import LogUnavailable, RootBusy


class RootLock:
    """The lock of one root. Use as a context manager, or `acquire` and `release`.

    Args:
        path: the lock's file; made, 0600, when missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock or fail at once.

        Raises:
            RootBusy: another reconciler has it; its pid and command are named.
            LogUnavailable: the file cannot be made: read-only, full, or no privilege.
        """
        pid = self._busy_by()
        if pid is not None:
            holder = self.holder() or f"pid {pid}"
            msg = f"another reconciler is at work on {self._path.parent}: {holder}"
            raise RootBusy(msg, hint="stop it first, or choose another --root")

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it, this very object neither; True when it is ours now.

        Quick: it is asked again and again, and to name the holder takes a look at all locks.

        Raises:
            LogUnavailable: as `acquire`.
        """
        return self._busy_by() is None

    def _busy_by(self) -> str | None:
        """Take the lock; returns None, or the pid that its holder has written down."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            msg = f"{self._path}: {error.strerror}"
            raise LogUnavailable(msg, hint="choose another state root with --root") from error
        try:
            _refuse_another_file(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            return pid
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


def _refuse_another_file(descriptor: int) -> None:
    """Refuse what was planted before the first start: the lock's file is truncated."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise OSError(errno.EINVAL, "it is no regular file, or has another name as well")

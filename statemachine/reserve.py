"""The reserve: a file of real blocks beside the log, given up when the file system is full.

A log that cannot be written stops every disk, and the file system that is full is mostly the one
under the root. So some room is kept while there is plenty: `<root>/reserve`. When a commit finds
no room, the file is deleted, and the commit is tried again at once. It is made again when there is
room for it four times over. Any process of the root may give it up or make it.

What it does not do: it never raises. A log without a reserve is as good as before, until it is
full. May be imported by writer, and by the API for its usual size.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

RESERVE_NAME: Final = "reserve"
RESERVE_BYTES: Final = 16 * 2**20
"""Some hundreds of commits: each writes a handful of pages of 4 KiB."""
ROOM_FACTOR: Final = 4
"""It is made when so many times its size is free, so that it never causes what it is against."""
_BLOCK: Final = 512
"""The unit of `st_blocks`, whatever the file system's own is (stat(2))."""


class Reserve:
    """The reserve of one root.

    Args:
        path: its file.
        size_bytes: how large it is; 0 for none.
    """

    def __init__(self, path: Path, *, size_bytes: int) -> None:
        self._path = path
        self._name = os.fspath(path)  # each commit looks, and a `Path` takes longer than the call
        self._size_bytes = size_bytes

    @property
    def is_there(self) -> bool:
        """Whether it has all its blocks; half of one was left by a crash while it was made."""
        try:
            status = os.lstat(self._name)
        except OSError:
            return False
        return status.st_blocks * _BLOCK >= self._size_bytes

    def keep(self) -> bool:
        """Make it if it is missing and there is room; True when it is there. Idempotent."""
        if self._size_bytes == 0:
            return False
        return self.is_there or (self._has_room() and self._make())

    def give_up(self) -> bool:
        """Delete it; True if that made room. Idempotent."""
        was_there = self._size_bytes > 0 and self.is_there
        try:
            self._path.unlink(missing_ok=True)
        except OSError:  # a read-only file system gives nothing back
            return False
        return was_there

    def _has_room(self) -> bool:
        try:
            free = os.statvfs(self._path.parent)
        except OSError:
            return False
        return free.f_bavail * free.f_frsize > ROOM_FACTOR * self._size_bytes

    def _make(self) -> bool:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except OSError:
            return False
        try:
            # Sparse would be no reserve: the blocks must be ours now.
            os.posix_fallocate(descriptor, 0, self._size_bytes)
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink()
            return False
        finally:
            os.close(descriptor)
        return True

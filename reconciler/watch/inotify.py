"""One inotify instance with types: watch folders, read what happened, nothing lost in silence.

The only module that imports pyinotify, 0.9.6 from 2015, which has habits of its own:

- It imports asyncore: deprecated in Python 3.11 (silenced here, only that, only during the
  import), gone in 3.12 (the distribution then depends on pyasyncore).
- Its logger writes bookkeeping to stderr through a handler of its own: switched off here.
- Of each notice it makes three objects, with a line for its logger each, and one name that is not
  UTF-8 makes it throw away all that it read. It makes and ends the watches; the notices are taken
  apart here, by inotify(7), and such a name is a `lost` notice, like an overflow of the queue.
- Its errors carry the errno in the text only: here they are OSErrors again.
- For each instance it looks the C library up by its name, for which Python starts `ldconfig`: 4 ms,
  and a program started for each `--wait`. Here it does not look.

What this module does not do: no thread, no hints, no looking after folders that come and go.
May be imported by `reconciler.watch` only. Needs no privilege but reading the folder.
"""

from __future__ import annotations

import ctypes
import enum
import os
import struct
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

with warnings.catch_warnings():
    warnings.filterwarnings(
        "ignore",
        message="The asyncore module is deprecated",
        category=DeprecationWarning,
    )
    import pyinotify

pyinotify.log.disabled = True
# Its own `ctypes`, which finds no library by name: it then takes the one that Python runs on.
pyinotify.ctypes = types.SimpleNamespace(**vars(ctypes))
pyinotify.ctypes.util = types.SimpleNamespace(find_library=lambda _name: None)

_GONE = (
    pyinotify.IN_DELETE_SELF | pyinotify.IN_MOVE_SELF | pyinotify.IN_UNMOUNT | pyinotify.IN_IGNORED
)
_HEADER: Final = struct.Struct("iIII")
"""`struct inotify_event` without its name: watch, mask, cookie, length of the name; inotify(7)."""
_READ_BYTES: Final = 64 * 1024


class Change(enum.IntFlag):
    """What to watch for in a folder. Source of the numbers: inotify(7), by pyinotify."""

    NOTHING = 0
    ENTRIES = (
        pyinotify.IN_CREATE | pyinotify.IN_DELETE | pyinotify.IN_MOVED_FROM | pyinotify.IN_MOVED_TO
    )
    """A name came or went."""
    WRITTEN = pyinotify.IN_CLOSE_WRITE
    """Somebody who could write closed the file."""
    CLOSED = pyinotify.IN_CLOSE_WRITE | pyinotify.IN_CLOSE_NOWRITE
    """Whoever had it open closed it."""
    MODIFIED = pyinotify.IN_MODIFY
    """A write to a file that may stay open, as a database does. Noisy in folders of devices."""


_CHANGES: Final = int(Change.ENTRIES | Change.CLOSED | Change.MODIFIED)


@attrs.frozen(kw_only=True)
class Notice:
    """One thing that happened; `lost` and `gone` may come without a name."""

    watch: int
    """The descriptor that `watch_folder` returned, -1 when notices were lost."""
    name: str = ""
    """The entry of the folder; "" when it is about the folder itself."""
    change: Change = Change.NOTHING
    gone: bool = False
    """The folder was deleted, moved or unmounted: this watch sees no more of its path."""
    lost: bool = False
    """The queue overflowed or could not be read: anything may have happened."""


class Told(enum.Enum):
    """What notices amount to that nobody takes apart."""

    NOTHING = enum.auto()
    SOMETHING = enum.auto()
    GONE = enum.auto()
    """A watch ended: it sees no more of its path."""


class Inotify:
    """An inotify instance. Not thread safe; raises OSError when there is none to be had.

    EMFILE: fs.inotify.max_user_instances is used up by this user.
    """

    def __init__(self) -> None:
        try:
            self._manager = pyinotify.WatchManager()
        except pyinotify.InotifyBindingNotFoundError as error:
            raise OSError("the C library has no inotify functions") from error
        except OSError as error:
            raise _from_last_errno("inotify_init", error) from error
        self._descriptor: int = self._manager.get_fd()
        # As inotify_init1 would do it with IN_CLOEXEC and IN_NONBLOCK.
        os.set_inheritable(self._descriptor, False)  # noqa: FBT003 - positional only
        os.set_blocking(self._descriptor, False)

    def fileno(self) -> int:
        """Return the descriptor, to poll for reading."""
        return self._descriptor

    def watch_folder(self, path: Path, changes: Change) -> int:
        """Watch a folder, following a symlink at its end.

        Returns:
            The watch descriptor; the same as before, with the new changes only, when the same
            folder is watched already under any path.

        Raises:
            OSError: it is missing (ENOENT), no folder (ENOTDIR), not readable (EACCES), or
                fs.inotify.max_user_watches is used up (ENOSPC).
        """
        mask = int(changes) | pyinotify.IN_DELETE_SELF | pyinotify.IN_MOVE_SELF
        return self._watch(path, mask | pyinotify.IN_ONLYDIR)

    def watch_file(self, path: Path, changes: Change) -> int:
        """Watch one file or device node, whatever becomes of its name; returns as `watch_folder`.

        Raises:
            OSError: as `watch_folder`.
        """
        return self._watch(path, int(changes))

    def _watch(self, path: Path, mask: int) -> int:
        try:
            watches = self._manager.add_watch(str(path), mask, quiet=False)
        except pyinotify.WatchManagerError as error:
            raise _from_last_errno(f"watch {path}", error) from error
        (watch,) = watches.values()
        return int(watch)

    def forget(self, watch: int) -> None:
        """Stop a watch; one that the kernel has ended already is fine."""
        self._manager.rm_watch(watch, quiet=True)
        # Where the kernel was first, pyinotify keeps its record.
        self._manager.watches.pop(watch, None)

    def read(self) -> list[Notice]:
        """Return what happened since the last call, or the first of much of it; does not wait.

        Raises:
            OSError: the descriptor cannot be read any more.
        """
        watches, found = self._manager.watches, []
        for watch, mask, name in self._take():
            # What is still told of a watch that was forgotten is nobody's.
            if watch in watches or mask & pyinotify.IN_Q_OVERFLOW:
                found.append(_notice(watch, mask, name))
            if mask & pyinotify.IN_IGNORED:
                watches.pop(watch, None)
        return found

    def drain(self) -> Told:
        """Take what happened since the last call, and tell only whether anything did.

        For who watches one file, and asks at each commit of the log. Does not wait.

        Raises:
            OSError: the descriptor cannot be read any more.
        """
        told = Told.NOTHING
        for _, mask, _ in self._take():
            if mask & _GONE:
                return Told.GONE
            told = Told.SOMETHING
        return told

    def _take(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield watch, mask and name of each notice that there is."""
        try:
            raw = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        end = 0
        while end < len(raw):
            watch, mask, _, length = _HEADER.unpack_from(raw, end)
            begin = end + _HEADER.size
            end = begin + length
            yield watch, mask, raw[begin:end]

    def close(self) -> None:
        """End all watches. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _notice(watch: int, mask: int, name: bytes) -> Notice:
    try:
        text = name.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return Notice(watch=watch, lost=True)
    return Notice(
        watch=watch,
        name=text,
        change=Change(mask & _CHANGES),
        gone=bool(mask & _GONE),
        lost=bool(mask & pyinotify.IN_Q_OVERFLOW),
    )


def _from_last_errno(doing: str, error: Exception) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{doing}: {os.strerror(number) if number else error}")

"""Watch the folders that links are in, as disks come and go.

A link that somebody deletes or replaces is noticed at once and not at the next resync. The hint's
name is the link's whole path. Folders come and go with the disks: `set_folders` is called with
what should be watched now.

What this module does not do: it does not look for a folder that vanished (its links vanished with
it, which is a hint for each), and it reads no link. May be imported by daemon.
Needs no privilege but reading the folders.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from reconciler.watch.hint import Hint, HintKind, Hold, Wake, at_once
from reconciler.watch.inotify import Change, Inotify, Notice
from reconciler.watch.thread import PollThread

FOLDERS_MAX: Final = 50_000
"""Beyond this, links are looked at by the resync only; fs.inotify.max_user_watches bounds, too."""


class LinkFolderWatcher:
    """A `Watcher` on a changing set of folders, by one inotify instance and one thread."""

    name = "links"

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._thread: PollThread | None = None
        self._lock = threading.Lock()
        self._watches: dict[Path, int] = {}
        self._refused = ""

    @property
    def unavailable(self) -> str:
        """Why it sees nothing, or not everything; "" when all is well."""
        return (self._thread.failure if self._thread else "") or self._refused

    def start(self, wake: Wake, hold_s: Hold = at_once) -> None:
        """See `Watcher.start`; nothing is watched before `set_folders`."""
        try:
            self._inotify = inotify = Inotify()
        except OSError as error:
            self._refused = f"inotify cannot be used: {error.strerror or error}"
            return

        def ready() -> None:
            with self._lock:
                hints = self._hints(inotify.read())
            for hint in hints:
                wake(hint)

        self._thread = PollThread("byre-links", inotify.fileno(), ready, hold_s=hold_s)
        self._thread.start()

    def stop(self) -> None:
        """See `Watcher.stop`."""
        thread, self._thread = self._thread, None
        if thread is not None and thread.stop() and self._inotify is not None:
            self._inotify.close()

    def set_folders(self, folders: Iterable[Path]) -> None:
        """Watch these folders and no others; those that cannot be watched are left out."""
        inotify = self._inotify
        if inotify is None:
            return
        wanted = set(folders)
        with self._lock:
            for folder in self._watches.keys() - wanted:
                inotify.forget(self._watches.pop(folder))
            self._refused = ""
            for folder in wanted - self._watches.keys():
                self._watch(inotify, folder)

    def _watch(self, inotify: Inotify, folder: Path) -> None:
        if len(self._watches) >= FOLDERS_MAX:
            self._refused = f"more than {FOLDERS_MAX} folders have links"
            return
        try:
            self._watches[folder] = inotify.watch_folder(folder, Change.ENTRIES)
        except FileNotFoundError:
            return  # the link is gone, too: the disk's own pass sees that
        except OSError as error:
            self._refused = str(error)

    def _hints(self, notices: list[Notice]) -> list[Hint]:
        folders = {watch: folder for folder, watch in self._watches.items()}
        hints: dict[str, None] = {}
        for notice in notices:
            if notice.lost:
                return [Hint(source=self.name, kind=HintKind.ALL)]
            folder = folders.get(notice.watch)
            if folder is None:
                continue
            if notice.gone:
                self._watches.pop(folder, None)
            hints[str(folder / notice.name) if notice.name else str(folder)] = None
        return [Hint(source=self.name, kind=HintKind.LINK, name=path) for path in hints]

"""Watch /dev/mapper, the specs and the log by inotify, and find them again when they come back.

Which folders are watched is itself kept level-triggered: after every sign of trouble, and every few
seconds while something is missing, the places that should be watched are compared with those that
are. Whatever could have been missed in between becomes one hint "all".

What this module does not do: it reads no file and knows no disk. Writes through mmap(2), and those
of other machines on a network file system, give no notice (inotify(7)): the resync finds them. So
it does a change behind a symlink inside the folder of specs.
May be imported by daemon, reconcile and cli. Needs no privilege but reading the folders.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs

from reconciler.clock import Clock
from reconciler.watch.hint import Hint, HintKind, Hold, Wake, at_once
from reconciler.watch.inotify import Change, Inotify, Notice
from reconciler.watch.thread import PollThread

MISSING_RECHECK_S: Final = 1.0
"""How soon a place that can come unnoticed, or cannot be watched, is looked for again."""
PRESENT_RECHECK_S: Final = 30.0
"""How soon a folder that was replaced without a notice (a mount over it) is found out."""
PLACES_MAX: Final = 64


@attrs.frozen(kw_only=True)
class Place:
    """Something to watch: a folder, or a file.

    A path that is no folder (a file, or nothing yet) is watched for in its parent, as editors
    replace files by renaming.
    """

    path: Path = attrs.field(validator=lambda _, __, path: _check_absolute(path))
    kind: HintKind
    changes: Change

    @classmethod
    def mapper(cls, path: Path = Path("/dev/mapper")) -> Place:
        """Watch the entries of /dev/mapper come and go."""
        return cls(path=path, kind=HintKind.MAPPER, changes=Change.ENTRIES)

    @classmethod
    def specs(cls, path: Path) -> Place:
        """Watch a file of specs, or a folder of such files."""
        return cls(path=path, kind=HintKind.SPEC, changes=Change.ENTRIES | Change.WRITTEN)


@attrs.frozen(kw_only=True)
class _Interest:
    """What one place wants from one folder."""

    place: Place
    names: frozenset[str] | None = None
    """The names in the folder that matter; None is all."""
    in_parent: bool = False
    """The folder is the parent of the place; a matching name may be the place coming or going."""

    @property
    def changes(self) -> Change:
        """What to watch for; a parent may be /dev, where every write to a terminal is a change."""
        if not self.in_parent:
            return self.place.changes
        return Change.ENTRIES | (self.place.changes & ~Change.MODIFIED)

    def wants(self, notice: Notice) -> bool:
        """Tell whether a notice from this folder is about the place."""
        return bool(notice.change & self.changes) and notice.name in (self.names or {notice.name})


@attrs.define(kw_only=True)
class _Folder:
    """A folder that is to be watched, or is."""

    path: Path
    changes: Change = Change.NOTHING
    interests: list[_Interest] = attrs.field(factory=list)
    watch: int = -1


_Identity = tuple[int, int]


class FolderWatcher:
    """A `Watcher` on a few places, by one inotify instance and one thread."""

    name = "inotify"

    def __init__(self, places: Iterable[Place], clock: Clock) -> None:
        self._places = tuple(places)
        if len(self._places) > PLACES_MAX:
            raise ValueError(f"{len(self._places)} places to watch; the most is {PLACES_MAX}")
        self._clock = clock
        self._inotify: Inotify | None = None
        self._thread: PollThread | None = None
        self._folders: dict[_Identity, _Folder] = {}
        self._look_at_s = 0.0
        self._refused = ""

    @property
    def unavailable(self) -> str:
        """Why it sees nothing, or which folders it may not watch; a missing one is no reason."""
        return (self._thread.failure if self._thread else "") or self._refused

    def start(self, wake: Wake, hold_s: Hold = at_once) -> None:
        """Watch what is there now, and look for the rest from now on; see `Watcher.start`."""
        try:
            self._inotify = inotify = Inotify()
        except OSError as error:
            self._refused = f"inotify cannot be used: {error.strerror or error}"
            return
        self._look(inotify)

        def ready() -> None:
            for hint in self._hints(inotify, inotify.read()):
                wake(hint)

        self._thread = PollThread(
            "byre-inotify", inotify.fileno(), ready, self._until_look_s, hold_s=hold_s
        )
        self._thread.start()

    def stop(self) -> None:
        """See `Watcher.stop`."""
        thread, self._thread = self._thread, None
        if thread is not None and thread.stop() and self._inotify is not None:
            self._inotify.close()

    def _until_look_s(self) -> float:
        return max(0.0, self._look_at_s - self._clock.monotonic_s())

    def _hints(self, inotify: Inotify, notices: list[Notice]) -> list[Hint]:
        """Turn notices into hints, one for each thing, and look after the watches."""
        lost = any(notice.lost for notice in notices)
        # After a loss a folder made anew may have its old inode number: trust no watch.
        gone = {notice.watch for notice in notices if notice.gone}
        self._forget(inotify, {f.watch for f in self._folders.values()} if lost else gone)
        wanted = [(i.in_parent, i.place.kind, n.name) for n in notices for i in self._wanting(n)]
        moved = any(in_parent for in_parent, _, _ in wanted)
        due = self._until_look_s() == 0
        if (lost or gone or moved or due) and (self._look(inotify) or lost):
            return [Hint(source=self.name, kind=HintKind.ALL)]
        return list(
            dict.fromkeys(
                Hint(source=self.name, kind=kind, name=name)
                for in_parent, kind, name in wanted
                if kind is HintKind.SPEC or not in_parent
            ),
        )

    def _wanting(self, notice: Notice) -> Iterator[_Interest]:
        for folder in self._folders.values():
            if folder.watch == notice.watch:
                yield from (each for each in folder.interests if each.wants(notice))

    def _forget(self, inotify: Inotify, watches: set[int]) -> None:
        for identity, folder in list(self._folders.items()):
            if folder.watch in watches:
                inotify.forget(folder.watch)
                del self._folders[identity]

    def _look(self, inotify: Inotify) -> bool:
        """Make the watches what they should be; True if one was added."""
        wanted, missing = _folders_of(self._places)
        before = self._folders
        self._forget(inotify, {f.watch for key, f in before.items() if key not in wanted})
        refused = []
        for identity, folder in wanted.items():
            known = before.get(identity)
            try:
                if known is None or known.changes != folder.changes:
                    folder.watch = inotify.watch_folder(folder.path, folder.changes)
                else:
                    folder.watch = known.watch
            except OSError as error:
                refused.append(error.strerror or str(error))
        self._folders = {key: f for key, f in wanted.items() if f.watch != -1}
        self._refused = "; ".join(refused)
        added = any(folder != before.get(key) for key, folder in self._folders.items())
        # After a new watch once more: what came before it, and after the look, gave no notice.
        again_s = MISSING_RECHECK_S if missing or refused or added else PRESENT_RECHECK_S
        self._look_at_s = self._clock.monotonic_s() + again_s
        return added


def _folders_of(places: Iterable[Place]) -> tuple[dict[_Identity, _Folder], bool]:
    """Return the folders to watch for these places now, and whether one can come unnoticed."""
    folders: dict[_Identity, _Folder] = {}
    missing = False
    for place in places:
        path, interest = place.path, _Interest(place=place)
        # One look for both questions: a folder made between two would pass for a file.
        status = _status(path)
        if (identity := _identity(status)) is None:
            path = place.path.parent
            names = frozenset({place.path.name})
            interest = _Interest(place=place, names=names, in_parent=True)
            identity = _identity(_status(path))
            # What a link leads to is made somewhere else.
            unseen = status is None and place.path.is_symlink()
            missing = missing or unseen or identity is None
        if identity is not None:
            folder = folders.setdefault(identity, _Folder(path=path))
            folder.interests.append(interest)
            folder.changes |= interest.changes
    return folders, missing


def _identity(status: os.stat_result | None) -> _Identity | None:
    """Return which folder a status is of, None if it is none or of something else."""
    if status is None or not stat.S_ISDIR(status.st_mode):
        return None
    return (status.st_dev, status.st_ino)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _check_absolute(path: Path) -> None:
    if not path.is_absolute():
        raise ValueError(f"{path} is not an absolute path")

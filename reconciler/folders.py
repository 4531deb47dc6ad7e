"""Which folders byre made for links: whoever leaves last takes them away.

A folder belongs to every disk whose link is below it, not only to the one it was made for; else
it would stay when its maker goes first. Kept in memory, and begun anew from the records.

What this module does not do: it makes and removes nothing. May be imported by reconcile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path


class MadeFolders:
    """The folders that byre made in one root's life. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: set[str] = set()

    def note(self, folders: Iterable[str]) -> None:
        """Note folders that byre made, or is about to make."""
        with self._lock:
            self._made.update(folders)

    def forget(self, folders: Iterable[str]) -> None:
        """Forget folders that are gone: whoever makes them next may be somebody else."""
        with self._lock:
            self._made.difference_update(folders)

    def above(self, link: Path) -> tuple[str, ...]:
        """Return the folders above a link that byre made, outermost first."""
        with self._lock:
            return tuple(str(each) for each in reversed(link.parents) if str(each) in self._made)

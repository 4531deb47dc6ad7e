"""Names in memory: one tree of folders, walked as the kernel walks a path.

Symlinks on the way are followed, "..", missing parts and files in the way do what they do in
Linux (path_resolution(7)). A folder can be another file system's root. No permission bits: what
may not be done is said by `SimKernel.denied`.

Raises OSError as system calls do. May be imported by the rooms of `sim` only.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from reconciler.kernel.sim.files import File, FileSystem, Folder, Node, Symlink, os_error

_LINKS_MAX: Final = 40  # MAXSYMLINKS, include/linux/namei.h
_NO_NAMES: Final = frozenset({"", ".", ".."})
"""Ends of a path that are no entry of a folder."""


class Place(NamedTuple):
    """Where a path leads: the folder, the name in it, and what is there."""

    folder: Folder
    name: str
    node: Node | None


class Tree:
    """All names of the host, from the root folder."""

    __slots__ = ("root",)

    def __init__(self, fs: FileSystem, now_ns: int) -> None:
        self.root = Folder(fs, "/", now_ns)

    def find(self, path: Path | str, *, follow: bool = False) -> Node | None:
        """Return what is at a path, None if nothing is (or something on the way is no folder)."""
        try:
            return self._at(path, follow=follow)[2]
        except (FileNotFoundError, NotADirectoryError):
            return None

    def get(self, path: Path | str, *, follow: bool = True) -> Node:
        """Return what is at a path; ENOENT if nothing is."""
        node = self._at(path, follow=follow)[2]
        if node is None:
            raise os_error(errno.ENOENT, path)
        return node

    def place(self, path: Path | str, *, follow: bool = False) -> Place:
        """Walk a path up to its last part.

        Args:
            path: an absolute path.
            follow: whether a symlink at its end is followed.

        Raises:
            OSError: ENOENT or ENOTDIR before the last part, ELOOP.
        """
        return Place(*self._at(path, follow=follow))

    def _at(self, path: Path | str, *, follow: bool) -> tuple[Folder, str, Node | None]:
        """Do what `place` does; nearly all paths have nothing but folders on the way."""
        way, _, name = str(path).rpartition("/")
        folder = self.root
        for each in _names(way):
            node = folder.entries.get(each)
            if type(node) is not Folder:
                return self._walk(path, follow=follow)
            folder = node
        node = folder.entries.get(name)
        if name in _NO_NAMES or (follow and type(node) is Symlink):
            return self._walk(path, follow=follow)
        return folder, name, node

    def _walk(self, path: Path | str, *, follow: bool) -> Place:
        """Do what `place` does, part by part, where there is more on the way than folders."""
        todo = _parts(path)
        stack = [self.root]
        links = 0
        place = Place(self.root, "/", self.root)
        while todo:
            name = todo.pop()
            if name == "..":
                stack = stack[:-1] or stack
                place = Place(stack[-1], "/", stack[-1])
                continue
            node = stack[-1].entries.get(name)
            if not todo:
                place = Place(stack[-1], name, node)
            if isinstance(node, Symlink) and (todo or follow):
                links += 1
                if links > _LINKS_MAX:
                    raise os_error(errno.ELOOP, path)
                stack = [self.root] if node.target.startswith("/") else stack
                todo += _parts(node.target)
            elif todo:
                stack.append(_folder(node, path))
            elif isinstance(node, Folder):
                stack.append(node)
        return place

    def real(self, path: Path | str) -> Path:
        """Return a path with its symlinks resolved; what is missing stays as it is said."""
        done = Path("/")
        todo = _parts(path)
        links = 0
        while todo:
            name = todo.pop()
            node = None if name == ".." else self.find(done / name)
            if isinstance(node, Symlink) and links < _LINKS_MAX:
                links += 1
                done = Path("/") if node.target.startswith("/") else done
                todo += _parts(node.target)
            else:
                done = done.parent if name == ".." else done / name
        return done

    def add(self, path: Path | str, node: Node) -> None:
        """Give a node a name; EEXIST if the name is taken."""
        place = self.place(path)
        if place.node is not None:
            raise os_error(errno.EEXIST, path)
        place.folder.put(place.name, node)

    def unlink(self, path: Path | str) -> Folder:
        """Take a name away; returns the folder it was in. EISDIR for a folder."""
        place = self.place(path)
        if place.node is None:
            raise os_error(errno.ENOENT, path)
        if isinstance(place.node, Folder):
            raise os_error(errno.EISDIR, path)
        place.folder.take(place.name).unlinked()
        return place.folder

    def rename(self, source: Path | str, target: Path | str) -> Folder:
        """Give a node another name in its folder, which takes what had that; returns the folder."""
        place = self.place(source)
        if place.node is None:
            raise os_error(errno.ENOENT, source)
        name = self.place(target).name
        if name in place.folder.entries:
            place.folder.take(name).unlinked()
        place.folder.put(name, place.folder.take(place.name))
        return place.folder

    def make_folders(self, path: Path | str, now_ns: int) -> Folder:
        """Make a folder and its missing parents; returns it. ENOTDIR if a file is in the way."""
        there = self.find(path, follow=True)
        if isinstance(there, Folder):
            return there
        folder = self.root
        done = Path("/")
        for name in reversed(_parts(path)):
            done = done / name
            node = self.find(done, follow=True)
            if node is None:
                node = Folder(folder.fs, str(done), now_ns)
                folder.put(name, node)
                folder.sync()
            folder = _folder(node, path)
        return folder

    def nodes(self) -> Iterator[Node]:
        """Walk over everything there is, also what lost its name since the last sync."""
        todo: list[Node] = [self.root]
        while todo:
            node = todo.pop()
            yield node
            if isinstance(node, Folder):
                todo += node.entries.values()
                todo += [gone for gone in node.undo.values() if gone is not None]

    def lose_unsynced(self) -> None:
        """Take all names and all content back to their last sync, as a power cut does."""
        for node in list(self.nodes()):
            if isinstance(node, Folder | File):
                node.lose()


def _parts(path: Path | str) -> list[str]:
    """Split a path, last part first."""
    return list(reversed(_names(str(path))))


@functools.lru_cache(maxsize=256)
def _names(path: str) -> tuple[str, ...]:
    """Split a path into its names; kept for the folders, of which there are few."""
    return tuple(part for part in path.split("/") if part not in {"", "."})


def _folder(node: Node | None, path: Path | str) -> Folder:
    if node is None:
        raise os_error(errno.ENOENT, path)
    if not isinstance(node, Folder):
        raise os_error(errno.ENOTDIR, path)
    return node

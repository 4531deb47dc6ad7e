"""Files in memory: sparse content, folders, symlinks, device nodes, and the room they share.

Content is kept in 4 KiB pages without their trailing zeros, so ten thousand empty disks cost
nothing. What was not synced can be lost again, as in a power cut. Names and paths are `tree`'s
business; nothing here knows of loops or of device-mapper.

Raises OSError as system calls do. May be imported by the rooms of `sim` only.
"""

from __future__ import annotations

import errno
import functools
import heapq
import os
from collections.abc import Iterator
from typing import Final

from statemachine.observed import DeviceNumber
from statemachine.units import Bytes, Sectors

PAGE_BYTES: Final = 4096
FREE_PAGES_WITHOUT_LIMIT: Final = 2**40 // PAGE_BYTES

in_bytes: Final = functools.lru_cache(maxsize=256)(Bytes)
in_sectors: Final = functools.lru_cache(maxsize=256)(Sectors)
"""A size as what is observed has it: thousands of disks are of a few sizes."""


def os_error(number: int, about: object = "") -> OSError:
    """Build the OSError that a system call would raise for this errno."""
    return OSError(number, os.strerror(number), str(about))


class FileSystem:
    """Room for pages, and inode numbers; shared by the nodes of one mount.

    Args:
        device: its st_dev.
        capacity_pages: how many pages fit, None for 1 TiB.
        reflink: whether FICLONE works.
        reuse_inodes: whether a deleted file's inode number is given to the next one, as ext4 does.
    """

    __slots__ = ("_free", "_next", "capacity_pages", "device", "direct_io", "nodev", "reflink",
                 "reuse_inodes", "used")  # fmt: skip

    def __init__(
        self,
        device: int,
        *,
        capacity_pages: int | None = None,
        reflink: bool = False,
        reuse_inodes: bool = False,
    ) -> None:
        self.device = device
        self.capacity_pages = FREE_PAGES_WITHOUT_LIMIT if capacity_pages is None else capacity_pages
        self.reflink = reflink
        self.direct_io = True
        self.nodev = False
        self.reuse_inodes = reuse_inodes
        self.used = 0
        self._next = 2
        self._free: list[int] = []

    @property
    def available_pages(self) -> int:
        """How many more pages fit."""
        return max(self.capacity_pages - self.used, 0)

    def resize(self, capacity: Bytes) -> None:
        """Change the room; what is there stays, also if it is more."""
        self.capacity_pages = capacity.count // PAGE_BYTES

    def take_page(self) -> None:
        """Occupy one page; ENOSPC when there is none."""
        if self.used >= self.capacity_pages:
            raise os_error(errno.ENOSPC)
        self.used += 1

    def new_inode(self) -> int:
        """Return the next inode number."""
        if self._free:
            return heapq.heappop(self._free)
        self._next += 1
        return self._next - 1

    def drop_inode(self, inode: int) -> None:
        """Take back the number of a node that is gone for good."""
        if self.reuse_inodes:
            heapq.heappush(self._free, inode)


class Node:
    """Whatever has an inode; `path` is where it was made, for the kernel's own messages."""

    __slots__ = ("fs", "inode", "linked", "mtime_ns", "path")

    def __init__(self, fs: FileSystem, path: str, now_ns: int) -> None:
        self.fs = fs
        self.inode = fs.new_inode()
        self.mtime_ns = now_ns
        self.path = path
        self.linked = True

    def unlinked(self) -> None:
        """Note that the name is gone; what nobody uses any more is gone with it."""
        self.linked = False
        self.fs.drop_inode(self.inode)


class Symlink(Node):
    """A name that stands for a path."""

    __slots__ = ("target",)

    def __init__(self, fs: FileSystem, path: str, now_ns: int, target: str) -> None:
        super().__init__(fs, path, now_ns)
        self.target = target


class BlockNode(Node):
    """A block device node; the device itself may or may not exist."""

    __slots__ = ("gid", "mode", "number", "uid")

    def __init__(self, fs: FileSystem, path: str, now_ns: int, number: DeviceNumber) -> None:
        super().__init__(fs, path, now_ns)
        self.number = number
        self.uid = self.gid = 0
        self.mode = 0o600


class Other(Node):
    """Something that is neither file, folder, link nor block device: a control node."""

    __slots__ = ()


class Folder(Node):
    """Names; `undo` holds what a name meant when the folder was last synced."""

    __slots__ = ("entries", "undo")

    def __init__(self, fs: FileSystem, path: str, now_ns: int) -> None:
        super().__init__(fs, path, now_ns)
        self.entries: dict[str, Node] = {}
        self.undo: dict[str, Node | None] = {}

    def put(self, name: str, node: Node) -> None:
        """Give a node a name."""
        self.undo.setdefault(name, self.entries.get(name))
        self.entries[name] = node

    def take(self, name: str) -> Node:
        """Take a name away; returns what had it."""
        self.undo.setdefault(name, self.entries[name])
        return self.entries.pop(name)

    def sync(self) -> None:
        """Make the names as they are survive a power cut."""
        self.undo.clear()

    def sync_name(self, name: str) -> None:
        """Make one name survive a power cut: it is synced with a new file."""
        self.undo.pop(name, None)

    def lose(self) -> None:
        """Go back to the names of the last sync."""
        for name, node in self.undo.items():
            if node is None:
                self.entries.pop(name, None)
            else:
                node.linked = True
                self.entries[name] = node
        self.undo.clear()


class File(Node):
    """A regular file: sparse pages, and what they were at the last sync."""

    __slots__ = ("_before", "_shared", "_undo", "mode", "pages", "size", "users", "verity")

    def __init__(self, fs: FileSystem, path: str, now_ns: int) -> None:
        super().__init__(fs, path, now_ns)
        self.size = 0
        self.mode = 0o600
        self.verity = ""
        """What fs-verity measured; "" where it is off."""
        self.pages: dict[int, bytes] = {}
        self.users = 0
        """Loops and handles that keep the content alive without a name."""
        self._shared: set[int] = set()
        """Pages that a reflink shares with its source, and that so take no room."""
        self._undo: dict[int, bytes | None] | None = None
        self._before = (0, now_ns)

    def read(self, offset: int, length: int) -> bytes:
        """Read up to the end of the file; holes are zeros."""
        length = max(min(length, self.size - offset), 0)
        parts = [
            self.pages.get(page, b"").ljust(PAGE_BYTES, b"\0")[start:end]
            for page, start, end in pages_of(offset, length)
        ]
        return b"".join(parts)

    def write(self, offset: int, data: bytes, now_ns: int) -> None:
        """Write, growing the file if need be; ENOSPC leaves the pages before it written."""
        self._remember()
        self.size = max(self.size, offset + len(data))
        self.mtime_ns = now_ns
        at = 0
        for page, start, end in pages_of(offset, len(data)):
            self._write_page(page, start, data[at : at + end - start])
            at += end - start

    def truncate(self, size: int, now_ns: int) -> None:
        """Set the size; what lies behind it is gone."""
        self._remember()
        self.size = size
        self.mtime_ns = now_ns
        last = -(-size // PAGE_BYTES)
        for page in [page for page in self.pages if page >= last]:
            self._note(page)
            del self.pages[page]
            self.fs.used -= page not in self._shared
            self._shared.discard(page)
        if size % PAGE_BYTES and last - 1 in self.pages:
            self._note(last - 1)
            self.pages[last - 1] = self.pages[last - 1][: size % PAGE_BYTES].rstrip(b"\0")

    def copy_pages(self, source: File, *, shared: bool, now_ns: int) -> None:
        """Take over another file's content; a reflink (`shared`) takes no room."""
        self._remember()
        for page, content in source.pages.items():
            if not shared and not content:
                continue  # a sparse copy makes holes of zeros
            if shared:
                self._shared.add(page)
            else:
                self.fs.take_page()
            self.pages[page] = content
        self.mtime_ns = now_ns

    def sync(self) -> None:
        """Make the content as it is survive a power cut."""
        self._undo = None

    def lose(self) -> None:
        """Go back to the content of the last sync."""
        if self._undo is None:
            return
        for page, content in self._undo.items():
            had = page in self.pages
            if content is None:
                self.pages.pop(page, None)
            else:
                self.pages[page] = content
            self.fs.used += (content is not None) - had
        self.size, self.mtime_ns = self._before
        self._undo = None

    def release(self) -> None:
        """One user less; without users and name the content is gone."""
        self.users -= 1
        self._free_if_unused()

    def unlinked(self) -> None:
        """Note that the name is gone; a loop on the file keeps its content."""
        self.linked = False
        self._free_if_unused()

    def _free_if_unused(self) -> None:
        if self.users == 0 and not self.linked:
            self.fs.used -= len(self.pages) - len(self._shared)
            self.pages, self._shared = {}, set()
            self._undo = None
            self.fs.drop_inode(self.inode)

    def _remember(self) -> None:
        if self._undo is None:
            self._undo = {}
            self._before = (self.size, self.mtime_ns)

    def _note(self, page: int) -> None:
        assert self._undo is not None
        self._undo.setdefault(page, self.pages.get(page))

    def _write_page(self, page: int, start: int, data: bytes) -> None:
        if page not in self.pages or page in self._shared:
            self.fs.take_page()
            self._shared.discard(page)
        self._note(page)
        if len(data) < PAGE_BYTES:
            old = self.pages.get(page, b"").ljust(PAGE_BYTES, b"\0")
            data = old[:start] + data + old[start + len(data) :]
        self.pages[page] = _trimmed(data)


def _trimmed(page: bytes) -> bytes:
    """Take off the zeros at the end; by halves at first, as `rstrip` goes byte by byte."""
    half = len(page) // 2
    while half and page.endswith(bytes(half)):
        page = page[:-half]
        half = len(page) // 2
    return page.rstrip(b"\0")


def pages_of(offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Cut a range of bytes into (page, start in the page, end in the page)."""
    end = offset + length
    while offset < end:
        page, start = divmod(offset, PAGE_BYTES)
        stop = min(PAGE_BYTES, start + end - offset)
        yield page, start, stop
        offset += stop - start

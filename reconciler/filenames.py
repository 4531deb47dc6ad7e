"""Which files of an ext4 have something in given parts of its image: asked of debugfs.

The image is a copy that nobody writes to. Its journal is not replayed: what is in there alone
has the names of before. Bounded in blocks and in time; what is cut off is said.

Needs `debugfs` of e2fsprogs, and no privilege. May be imported by comparing.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Sequence
from typing import Final

import attrs

from reconciler.content.image import Image
from reconciler.content.spans import Span

BLOCKS_MAX: Final = 100_000
"""How many blocks are looked up; a changed disk of 400 MiB."""
TIMEOUT_S: Final = 60.0
"""How long one call of debugfs may take."""
_AT_ONCE: Final = 8_000
"""So many numbers fit one argument of a program: 128 KiB, MAX_ARG_STRLEN in binfmts.h."""

# struct ext4_super_block at byte 1024, fs/ext4/ext4.h
_SUPER: Final = 1024
_LOG_BLOCK_SIZE: Final = _SUPER + 24
_MAGIC_AT: Final = _SUPER + 56
_MAGIC: Final = 0xEF53
_LOG_BLOCK_SIZE_MAX: Final = 6

_PAIR = re.compile(r"(\d+)\t(.+)")
_NAMELESS: Final = {2: "/", 7: "<resize inode>", 8: "<journal>"}
"""EXT2_ROOT_INO, EXT2_RESIZE_INO, EXT2_JOURNAL_INO: they have blocks, and debugfs no name."""


@attrs.frozen(kw_only=True)
class Touched:
    """What was found.

    Attributes:
        files: (path in the file system, bytes of it in the parts), by path.
        other: bytes that belong to no file: metadata of the file system, or free.
        note: why there are none, or what limits the answer; "" if nothing does.
    """

    files: tuple[tuple[str, int], ...] = ()
    other: int = 0
    note: str = ""


def unavailable(image: Image) -> str:
    """Say why no names can be told for an image; "" when they can."""
    if _block_bytes(image.read(0, min(image.size, 4096))) == 0:
        return "it has no ext4 file system on the whole disk"
    return "" if _debugfs() else "debugfs is not there; it is in the package e2fsprogs"


def touched(descriptor: int, spans: Sequence[Span]) -> Touched:
    """Return the files that have something in parts of an image.

    Args:
        descriptor: the image, open for reading; nobody writes to it.
        spans: the parts.
    """
    size = _block_bytes(os.pread(descriptor, 4096, 0))
    assert size, "the caller asked whether it is one"
    numbers = (block for span in spans for block in range(span.start // size, -(-span.end // size)))
    blocks = list(dict.fromkeys(itertools.islice(numbers, BLOCKS_MAX)))
    note = "" if next(numbers, None) is None else f"only the first {BLOCKS_MAX} blocks"
    counts: Counter[int] = Counter()
    try:
        for inode in _asked(descriptor, "icheck", blocks).values():
            if inode.isdecimal():
                counts[int(inode)] += 1
        names = _asked(descriptor, "ncheck", [each for each in counts if each not in _NAMELESS])
    except subprocess.TimeoutExpired:
        return Touched(note=f"debugfs took longer than {TIMEOUT_S:.0f} s")
    named = {inode: _name(inode, names.get(inode)) for inode in counts}
    return Touched(
        files=tuple(sorted((named[inode], count * size) for inode, count in counts.items())),
        other=(len(blocks) - counts.total()) * size,
        note=note,
    )


def _block_bytes(head: bytes) -> int:
    """Return the size of a block of the ext4 that begins so; 0 if it is none."""
    if len(head) < _MAGIC_AT + 2 or struct.unpack_from("<H", head, _MAGIC_AT) != (_MAGIC,):
        return 0
    log: int = struct.unpack_from("<I", head, _LOG_BLOCK_SIZE)[0]
    return 1024 << log if log <= _LOG_BLOCK_SIZE_MAX else 0


def _name(inode: int, path: str | None) -> str:
    """Return what to call a file; debugfs begins paths with two slashes."""
    if path is not None:
        return f"/{path.lstrip('/')}"
    return _NAMELESS.get(inode, f"<inode {inode}>")


def _debugfs() -> str:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    return shutil.which("debugfs", path=path) or ""


def _asked(descriptor: int, question: str, numbers: Sequence[int]) -> dict[int, str]:
    """Ask about numbers; returns what debugfs says of each, the first if it says more."""
    found: dict[int, str] = {}
    for start in range(0, len(numbers), _AT_ONCE):
        words = " ".join(map(str, numbers[start : start + _AT_ONCE]))
        done = subprocess.run(  # noqa: S603 - a fixed program; only numbers are given to it
            [_debugfs(), "-R", f"{question} {words}", f"/proc/self/fd/{descriptor}"],
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
        for number, text in _PAIR.findall(done.stdout):
            found.setdefault(int(number), text)
    return found

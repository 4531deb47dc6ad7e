"""Who has a regular file open: for the refusal to delete one that is in use.

Walks /proc, so it is slow (about 1 ms per 100 open files) and is asked only before a deletion. A
loop device holds its file inside the kernel and is not seen here; a process that maps the file
and has closed it is.

Source: proc(5). Privilege: root sees all processes, others their own.
May be imported by resolve and tests.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from statemachine.fileidentity import FileIdentity
from statemachine.observed import Holder

PROC: Final = Path("/proc")
_USERS_MAX: Final = 64


def users_of(file: FileIdentity, *, proc: Path = PROC) -> tuple[Holder, ...]:
    """Return the other processes that have a file open or mapped, at most 64, each once."""
    found: list[Holder] = []
    for folder in proc.iterdir():
        if len(found) >= _USERS_MAX:
            break
        if folder.name.isdecimal() and int(folder.name) != os.getpid() and _has(folder, file):
            found.append(Holder(kind="process", name=_name(folder), pid=int(folder.name)))
    return tuple(found)


def _has(process: Path, file: FileIdentity) -> bool:
    for link in (*_links(process / "fd"), *_links(process / "map_files")):
        with contextlib.suppress(OSError):  # closed meanwhile, or no privilege
            status = link.stat()
            if (status.st_dev, status.st_ino) == (file.device, file.inode):
                return True
    return False


def _links(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):  # ended meanwhile, or no privilege
        yield from folder.iterdir()


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "?"

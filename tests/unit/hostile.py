"""What another user can do to a path, played the same way as root and as anybody else.

May be imported by the tests of paths.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.kernel import ioctl

STRANGER: int = 54321
"""A uid that is neither root's nor ours."""


def share(folder: Path) -> Path:
    """Make a folder one that another user can write to: his own, where we may give it away."""
    folder.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, STRANGER, STRANGER)
        folder.chmod(0o755)
    else:
        folder.chmod(0o777)
    return folder


def private(folder: Path) -> Path:
    """Make a folder that is ours alone."""
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def found(*, uid: int, mode: int, gid: int = STRANGER) -> os.stat_result:
    """Return what stat says of a file or folder of this owner and mode."""
    return os.stat_result((mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


def folder_of(uid: int, mode: int = 0o755, *, gid: int = STRANGER) -> os.stat_result:
    """Return what stat says of a folder."""
    return found(uid=uid, mode=stat.S_IFDIR | mode, gid=gid)


@contextmanager
def swapping(shared: Path, one: str, other: str) -> Iterator[None]:
    """Exchange two names of a folder for each other as fast as can be, meanwhile."""
    end = threading.Event()

    def swap() -> None:
        with ioctl.opened(shared, os.O_PATH | os.O_DIRECTORY) as folder:
            while not end.is_set():
                ioctl.exchange(one, other, folder=folder)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()

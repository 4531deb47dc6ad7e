"""The state root on disk: made private, and refused where another user can reach into it.

Whoever can write to the root can say what byre's privileges are used for, and whoever can rename a
folder above it can put another root in its place. So the root, every folder above it and the files
in it are looked at before one of them is opened for writing. Nothing is repaired: what an open
root already had in it is a person's to judge.

What this module does not do: it opens no file, and asks nothing of who only reads.
May be imported by the API.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from reconciler.kernel import safepath
from reconciler.kernel.files import make_parents
from reconciler.root import Root
from statemachine.errors import LogUnavailable, UnsafePath


def secure(root: Root) -> None:
    """Make the state root if it is missing, 0700, and check that it is only ours; idempotent.

    Raises:
        UnsafePath: another user can write to it or replace it; the hint is the command to run.
        LogUnavailable: it cannot be made or looked at.
    """
    try:
        make_parents(root.log)
        with safepath.folder(root.path, own=True) as folder:
            _check_folder(root.path, folder)
            for file in (root.log, *_beside(root.log), root.lock, root.config):
                _check_file(file, folder)
    except OSError as error:
        msg = f"{root.path}: {error.strerror or error}"
        raise LogUnavailable(msg, hint="choose another state root with --root") from error


def _beside(log: Path) -> list[Path]:
    """Return the files that SQLite keeps beside a log in WAL mode (sqlite.org/wal.html)."""
    return [log.with_name(f"{log.name}{ending}") for ending in ("-wal", "-shm", "-journal")]


def _check_folder(path: Path, folder: int) -> None:
    found = os.fstat(folder)
    if not safepath.keeps(found):
        raise _refused(path, found, "another user can write to this state root")


def _check_file(path: Path, folder: int) -> None:
    try:
        found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        msg = f"{path} is no regular file"
        raise UnsafePath(msg, hint="byre did not make it: look at it, then move it away")
    if found.st_nlink > 1:
        msg = f"{path} has {found.st_nlink} names; writing to it would change the other file, too"
        raise UnsafePath(msg, hint=f"find it by `find / -xdev -inum {found.st_ino}`")
    if not safepath.is_ours(found):
        raise _refused(path, found, "another user can write to this file")


def _refused(path: Path, found: os.stat_result, why: str) -> UnsafePath:
    mode = stat.S_IMODE(found.st_mode)
    return UnsafePath(
        f"{path}: {why} (owner {found.st_uid}, mode {mode:04o})",
        hint=f"see that nothing in it is planted, then `{safepath.remedy(path, found)}`",
    )

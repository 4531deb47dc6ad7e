"""A copy of a log in one file, made while others write to it, and proven before it has its name.

The copy is what the log was at one moment: SQLite's online backup reads it in one transaction, and
holds up no writer. It carries its own head, in its table `meta`, and needs no file beside it. What
is there under its name is whole: it is made under another one, checked, synced, and then linked.

What it does not do: it does not stop a reconciler, and copies no CoW file.
May be imported by `reconciler.cli`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from statemachine import database, proof
from statemachine.errors import LogUnavailable, RefusedError
from statemachine.logreader import BACKUP_HEAD, LogReader

PARTIAL: Final = ".byre-partial"
"""What the name of a copy ends with until it is whole."""


@attrs.frozen(kw_only=True)
class BackedUp:
    """A copy that was proven. `seq` and `hash` are its head."""

    file: str
    events: int
    seq: int
    hash: str
    size_bytes: int


def back_up(log: Path, target: Path) -> BackedUp:
    """Copy a log into a new file, 0600.

    Args:
        log: may be in use.
        target: the new file; its folder must exist.

    Raises:
        RefusedError: there is something in the target's place.
        LogUnavailable: the log or the target cannot be read or written; nothing is left of it.
        LogDamaged: the log is not what was written; nothing is left of the copy.
    """
    _refuse_taken(target)
    if not log.exists():
        msg = f"{log} does not exist; there is nothing to back up"
        raise LogUnavailable(msg, hint="choose another state root with --root")
    with partial(target) as copy:
        database.copy(log, copy)
        with LogReader(copy) as opened:
            found = proof.verify(opened)
        database.set_meta(copy, BACKUP_HEAD, f"{found.seq}:{found.hash}")
        size_bytes = copy.stat().st_size
        put_in_place(copy, target)
    return BackedUp(
        file=str(target),
        events=found.events,
        seq=found.seq,
        hash=found.hash,
        size_bytes=size_bytes,
    )


@contextlib.contextmanager
def partial(target: Path) -> Iterator[Path]:
    """Yield a new empty file, 0600, beside a target; nothing is left of it at the end."""
    path = target.with_name(f".{target.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise LogUnavailable(msg, hint="name a file in a folder that can be written") from error
    try:
        yield path
    finally:
        for ending in ("", "-journal", "-wal", "-shm"):
            path.with_name(f"{path.name}{ending}").unlink(missing_ok=True)


def put_in_place(copy: Path, target: Path) -> None:
    """Give a whole file its name, unless the name is taken; on disk when this returns.

    Raises:
        RefusedError: the name was taken meanwhile.
        LogUnavailable: the file system failed.
    """
    try:
        sync(copy)
        target.hardlink_to(copy)
        sync(target.parent)
    except FileExistsError:
        _refuse_taken(target)
    except OSError as error:
        raise LogUnavailable(f"{target}: {error.strerror}") from error


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_taken(target: Path) -> None:
    if os.path.lexists(target):
        msg = f"{target} exists; a backup is written to a new file"
        raise RefusedError(msg, hint="name another file")

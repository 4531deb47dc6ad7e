"""Files that people name, outside of the root: where they may be, their errors, their event.

May be imported by copying, carrying and comparing.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from reconciler.api import Byre
from reconciler.kernel import newfile, safepath
from reconciler.kernel.safepath import Place
from reconciler.requester import as_text
from statemachine import payloads
from statemachine.errors import RefusedError, UsageError, from_oserror
from statemachine.events import CORRELATION_BYTES, NewEvent
from statemachine.record import Record

Tell = Callable[[str, int, int], None]
"""Is told what is being done, and how many bytes of how many are."""


def untold(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""


@contextlib.contextmanager
def outside(byre: Byre, target: Path, *, replace: bool) -> Iterator[Place]:
    """Walk to the folder of a file that is to be made outside of the root.

    Raises:
        RefusedError: it is in the root, is a base, or is there and is not to be replaced.
        UsageError: its folder is missing.
        UnsafePath: another user could lead the way there elsewhere.
    """
    root = byre.root.path.resolve()
    if target.resolve().is_relative_to(root):
        msg = f"{target} is in the state root {root}"
        raise RefusedError(msg, hint="write it elsewhere: the root is byre's own")
    try:
        with safepath.place(target) as place:
            if newfile.is_there(place):
                _refuse_taken(byre, target, replace=replace)
            yield place
    except (FileNotFoundError, NotADirectoryError) as error:
        if target.parent.is_dir():
            raise
        msg = f"no such folder: {target.parent}"
        raise UsageError(msg, hint="make it first; byre makes none there") from error


def _refuse_taken(byre: Byre, target: Path, *, replace: bool) -> None:
    found = byre.kernel.identify(target)
    if found is None or found.kind != "file":
        raise RefusedError(f"{target} is there, and is no regular file", hint="choose another path")
    for record in byre.log.records():
        if record.base.same_file(found, same_boot=record.base_boot_id == byre.log.boot_id):
            msg = f"{target} is the base of {record.name}"
            raise RefusedError(msg, hint="a base is never replaced; choose another path")
    if not replace:
        raise RefusedError(f"{target} is there", hint="choose another path, or say --force")


def append(byre: Byre, record: Record, payload: payloads.DiskExported, *, reason: str) -> None:
    """Tell the log of a copy that is there."""
    event = NewEvent(
        disk=record.name,
        type=payloads.type_of(payload),
        data=payloads.to_data(payload),
        actor=payload.by.user if payload.by else "",
        generation=record.generation,
        reason=as_text(reason),
        correlation_id=secrets.token_hex(CORRELATION_BYTES),
    )
    byre.log.append([event])


@contextlib.contextmanager
def failing(doing: str) -> Iterator[None]:
    """Turn what the file system says into byre's own error, with the action in its text."""
    try:
        yield
    except OSError as error:
        raise from_oserror(error, doing) from error

"""Taking a disk's content out of the root: flattened into a new base image.

The file is there when it is whole and durable, or not at all; an interruption leaves nothing
behind. Then the log is told who took what where. Any process may do this beside a running
reconciler: the disk stays as it is, but for the moment in which a live one is suspended.
May be imported by cli.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs

from reconciler.api import Byre
from reconciler.content import flat
from reconciler.kernel import newfile, safepath
from reconciler.kernel.safepath import Place
from reconciler.requester import this_process
from reconciler.source import Sources, WhenLive
from statemachine import payloads
from statemachine.errors import RefusedError, UsageError, from_oserror
from statemachine.events import NewEvent
from statemachine.projection import Record

Tell = Callable[[str, int, int], None]
"""Is told what is being done, and how many bytes of how many are."""

COPYING: Final = "copying"
DIGESTING: Final = "digesting"


@attrs.frozen(kw_only=True)
class Flattened:
    """What `flatten` made.

    Attributes:
        record: the disk.
        path: the image.
        size: of the image, in bytes.
        allocated: what it takes on its file system, in bytes.
        sha256: its digest; "" if that was not asked for.
        method: how the base got there, "reflink" or "sparse-copy".
        frozen_ns: how long the disk was suspended for it.
    """

    record: Record
    path: Path
    size: int
    allocated: int
    sha256: str
    method: str
    frozen_ns: int


def sources(byre: Byre) -> Sources:
    """Return what opens disks of a root."""
    return Sources(
        kernel=byre.kernel,
        root=byre.root,
        clock=byre.clock,
        watermarks=byre.settings.watermarks,
        boot_id=byre.log.boot_id,
    )


def _untold(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""


def flatten(
    byre: Byre,
    name: str,
    target: Path,
    *,
    when_live: WhenLive = WhenLive.SUSPEND,
    replace: bool = False,
    with_digest: bool = True,
    reason: str = "",
    tell: Tell = _untold,
) -> Flattened:
    """Write what a disk shows into a new image file, and record that.

    Args:
        byre: open for writing.
        name: the disk.
        target: the image; its folder must be there.
        when_live: whether a live disk is suspended for a moment, or refused.
        replace: whether a file that is there may be replaced, when the new one is whole.
        with_digest: whether the SHA-256 of the image is computed; that reads all of it.
        reason: why; recorded.
        tell: is told how far it is.

    Raises:
        NoSuchDisk, UsageError: there is no such disk, or no such folder.
        RefusedError: the target is there, or the disk cannot be read; see `Sources.opened`.
        ActionError: a file could not be read or written; nothing is left of the image.
    """
    record, target = byre.get(name), target.absolute()
    opener = sources(byre)
    with (
        failing(f"flatten {name} to {target}"),
        outside(byre, target, replace=replace) as place,
        opener.opened(record, when_live=when_live) as source,
    ):
        with newfile.made(place, replace=replace) as image:
            method = flat.write(
                source.image,
                image,
                lambda done, total: tell(COPYING, done, total),
                room=lambda needed: opener.refuse_without_room(target.parent, needed),
            )
            os.fsync(image)
            source.check_unmoved()
            sha256 = ""
            if with_digest:
                sha256 = flat.digest(image, lambda done, all_: tell(DIGESTING, done, all_))
            found = os.fstat(image)
        made = Flattened(
            record=record,
            path=target,
            size=found.st_size,
            allocated=found.st_blocks * 512,
            sha256=sha256,
            method=method.value,
            frozen_ns=source.frozen_ns,
        )
    payload = payloads.DiskExported(
        form="image",
        path=str(target),
        size_bytes=made.size,
        sha256=sha256,
        method=made.method,
        frozen_ns=made.frozen_ns,
        by=this_process(),
    )
    append(byre, record, payload, reason=reason)
    return made


def append(byre: Byre, record: Record, payload: payloads.DiskExported, *, reason: str) -> None:
    """Tell the log of a copy that is there."""
    event = NewEvent(
        disk=record.name,
        type=payloads.type_of(payload),
        data=payloads.to_data(payload),
        actor=payload.by.user if payload.by else "",
        generation=record.generation,
        reason=reason.encode(errors="replace").decode(),  # an argument may be no text
        correlation_id=secrets.token_hex(16),
    )
    byre.log.append([event])


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


@contextlib.contextmanager
def failing(doing: str) -> Iterator[None]:
    """Turn what the file system says into byre's own error, with the action in its text."""
    try:
        yield
    except OSError as error:
        raise from_oserror(error, doing) from error

"""Taking a disk's content out of the root: flattened into a new base image.

The file is there when it is whole and durable, or not at all; an interruption leaves nothing
behind. Then the log is told who took what where. Any process may do this beside a running
reconciler: the disk stays as it is, but for the moment in which a live one is suspended.
May be imported by cli.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import attrs

from reconciler.api import Byre
from reconciler.content import flat
from reconciler.kernel import newfile
from reconciler.outside import Tell, append, failing, outside, untold
from reconciler.requester import this_process
from reconciler.source import WhenLive
from statemachine import payloads
from statemachine.record import Record

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


def flatten(
    byre: Byre,
    name: str,
    target: Path,
    *,
    when_live: WhenLive = WhenLive.SUSPEND,
    replace: bool = False,
    with_digest: bool = True,
    reason: str = "",
    tell: Tell = untold,
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
    opener = byre.sources()
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

"""Where a disk differs from its base, or from another disk on the same base.

Only what was written to is read: time grows with the change, not with the disk. A clone has no
list of what was written to it, so it is compared wherever it or its base is no hole.
May be imported by cli.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import attrs

from reconciler import filenames
from reconciler.api import Byre
from reconciler.content import compare, flat
from reconciler.content.image import Image
from reconciler.content.spans import Span, total, union
from reconciler.filenames import Touched
from reconciler.kernel import newfile, safepath
from reconciler.outside import failing
from reconciler.source import Source, WhenLive
from statemachine.errors import IdentityMismatch, UsageError
from statemachine.record import Record


@attrs.frozen(kw_only=True)
class Comparison:
    """Where two images differ.

    Attributes:
        record: the disk.
        other: the other disk; None for the base.
        spans: what differs, in order, in blocks of 4 KiB.
        looked_at: how many bytes could differ, and so were compared.
        frozen_ns: how long live disks were suspended for it, together.
        touched: the files that have something in the spans; None if that was not asked for.
    """

    record: Record
    other: Record | None
    spans: tuple[Span, ...]
    looked_at: int
    frozen_ns: int
    touched: Touched | None = None

    @property
    def changed(self) -> int:
        """How many bytes differ."""
        return total(self.spans)


def compared(
    byre: Byre,
    name: str,
    other: str = "",
    *,
    when_live: WhenLive = WhenLive.SUSPEND,
    with_files: bool = False,
) -> Comparison:
    """Compare a disk with its base, or with another disk.

    Args:
        byre: an open root.
        name: the disk.
        other: the other one; "" for the base.
        when_live: whether live disks are suspended for a moment, or refused.
        with_files: whether the files of the disk that the spans belong to are looked up.

    Raises:
        NoSuchDisk: there is no such disk.
        UsageError: both are one disk.
        IdentityMismatch: they stand on different bases.
        RefusedError, ActionError: one cannot be read; see `Sources.opened`.
    """
    record = byre.get(name)
    another = byre.get(other) if other else None
    if another is not None:
        _refuse_unrelated(byre, record, another)
    opener = byre.sources()
    with contextlib.ExitStack() as stack:
        stack.enter_context(failing(f"compare {name}"))

        def opened(each: Record) -> Source:
            return stack.enter_context(opener.opened(each, when_live=when_live, needs_base=True))

        left = opened(record)
        right = opened(another) if another is not None else None
        against: Image | None = right.image if right else left.base
        assert against is not None, "the base was asked for"
        where = list(union(left.image.written(), right.image.written() if right else ()))
        spans = tuple(compare.differences(left.image, against, where))
        touched = _touched(byre, left, spans) if with_files else None
        for each in (left, right):
            if each is not None:
                each.check_unmoved()
        return Comparison(
            record=record,
            other=another,
            spans=spans,
            looked_at=total(where),
            frozen_ns=left.frozen_ns + (right.frozen_ns if right else 0),
            touched=touched,
        )


def _refuse_unrelated(byre: Byre, record: Record, other: Record) -> None:
    if record.name == other.name:
        raise UsageError(f"{record.name} and {other.name} are one disk; name another, or none")
    same_boot = record.base_boot_id == other.base_boot_id == byre.log.boot_id
    if not record.base.same_content(other.base, same_boot=same_boot):
        msg = (
            f"{record.name} and {other.name} stand on different bases: "
            f"{record.wanted.base} ({record.base}) and {other.wanted.base} ({other.base})"
        )
        raise IdentityMismatch(msg, hint="flatten both, and compare the images with `cmp`")


def _touched(byre: Byre, source: Source, spans: tuple[Span, ...]) -> Touched:
    """Look up files in a copy without a name: never in a device that somebody writes to."""
    why_not = filenames.unavailable(source.image)
    if why_not:
        return Touched(note=why_not)
    folder = Path(source.record.cow_path)
    opener = byre.sources()
    with safepath.place(folder, own=True) as place, newfile.scratch(place) as copy:
        flat.write(
            source.image,
            copy,
            room=lambda needed: opener.refuse_without_room(folder.parent, needed),
        )
        return filenames.touched(copy, spans)

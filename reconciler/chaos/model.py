"""What a run knows apart from byre: what was asked, what was written, what was broken.

The judgement compares byre with this and never with byre's own word alone. May be imported by
the package only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

from statemachine.machine import Desired
from statemachine.names import DmUuid
from statemachine.record import Record

BROKEN_KINDS: Final = frozenset(
    {"cow-missing", "cow-invalid", "cow-foreign", "snapshot-invalid", "snapshot-overflow"}
)
"""The faults of a disk whose data was destroyed."""


def key_of(record: Record) -> DmUuid:
    """Return which disk this is, in which generation."""
    return DmUuid(record.id, record.generation)


@attrs.frozen(kw_only=True)
class Breakage:
    """Something that is broken until it is healed.

    Attributes:
        what: its kind, for the figures.
        heal: puts it right, as the person would who broke it; harmless when it is right already.
        explains: the kinds of failures and faults that it may cause.
    """

    what: str
    heal: Callable[[], str]
    explains: frozenset[str] = frozenset()


@attrs.frozen(kw_only=True)
class ForeignLoop:
    """A loop device that somebody else put on a file."""

    number: int
    inode: int


class Model:
    """What should be, by what was done."""

    def __init__(self) -> None:
        self.asked: dict[str, Desired] = {}
        self.written: defaultdict[DmUuid, dict[int, bytes]] = defaultdict(dict)
        """What was flushed to a disk, by offset."""
        self.deleted: set[DmUuid] = set()
        """Disks whose file this run deleted."""
        self.overflowed: set[DmUuid] = set()
        """Disks whose snapshot was lost in a full file system; a power cut may undo that."""
        self.damaged: set[DmUuid] = set()
        """Disks whose store is damaged until that is healed."""
        self.broken: list[Breakage] = []
        self.broke: Counter[str] = Counter()
        self.explained: set[str] = set()
        self.foreign_dm: dict[str, str] = {}
        """UUIDs by name."""
        self.foreign_loops: list[ForeignLoop] = []
        self.own_folders: set[Path] = set()
        """Folders that a person made or put something into: byre may have had to leave them."""

    @property
    def lost(self) -> set[DmUuid]:
        """Disks whose data this run may have destroyed."""
        return self.deleted | self.overflowed

    def add(self, breakage: Breakage) -> None:
        """Take note that something was broken."""
        self.broke[breakage.what] += 1
        self.explained |= breakage.explains
        self.broken.append(breakage)

    def count(self, what: str, *explains: str) -> None:
        """Take note of something that was broken and needs no healing."""
        self.broke[what] += 1
        self.explained.update(explains)

    def rebooted(self) -> None:
        """Forget what lives in the kernel only."""
        self.foreign_dm.clear()
        self.foreign_loops.clear()

"""Disks in use: devices that a storm holds open over the kill, writes to, and checks byte by byte.

May be imported by the storm.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import attrs

from reconciler.api import Byre
from reconciler.outcome import is_there
from statemachine.record import Record
from tests.torture.contents import BLOCK, Contents, stamped
from tests.torture.direct import Direct, read_all

OPEN_MAX: Final = 3
_PAUSE_S: Final = 0.02
"""Between two writes: whoever is to be disturbed by them needs the processor as well."""


@attrs.define
class Session:
    """A device that is held open."""

    device: Direct
    contents: Contents
    leaves: bool = False
    """The disk was asked to go while it was in use."""


@attrs.define(eq=False)
class Sessions:
    """The devices that are open just now, and what every disk must hold.

    Args:
        bases: the bytes of each base.
        chance: chooses.
    """

    bases: Mapping[Path, bytes]
    chance: random.Random
    opened: dict[str, Session] = attrs.field(factory=dict, init=False)
    writes: int = attrs.field(default=0, init=False)
    bytes_checked: int = attrs.field(default=0, init=False)
    _contents: dict[tuple[str, int], Contents] = attrs.field(factory=dict, init=False)

    def open_some(self, byre: Byre, names: Iterable[str]) -> None:
        """Open some of these disks if they are live, and check first what they hold."""
        closed = [name for name in names if name not in self.opened]
        room = OPEN_MAX - len(self.opened)
        for name in self.chance.sample(closed, k=min(room, len(closed))):
            record = byre.get(name)
            if is_there(record):
                contents = self.contents_of(record)
                device = Direct(Path(record.device))
                self._check(contents, device.read_all())
                self.opened[name] = Session(device, contents)

    def write_once(self) -> None:
        """Write one block to an open disk, and have it survive; rest a moment."""
        time.sleep(_PAUSE_S)
        if not self.opened:
            return
        session = self.opened[self.chance.choice(sorted(self.opened))]
        contents = session.contents
        self.writes += 1
        block = self.chance.randrange(len(contents.base) // BLOCK)
        contents.begin([block], self.writes)
        data = stamped(contents.disk, contents.generation, block, self.writes)
        session.device.write(block, data)
        session.device.flush()
        contents.flush()

    def close_some(self) -> None:
        """Close those that were asked to go, and some more."""
        self._close(s.leaves or self.chance.random() < 0.4 for s in list(self.opened.values()))

    def close_all(self) -> None:
        """Close all; idempotent, also in a forked child that would keep them busy."""
        self._close(True for _ in list(self.opened))

    def _close(self, choices: Iterable[bool]) -> None:
        for name, chosen in zip(list(self.opened), list(choices), strict=True):
            if chosen:
                self.opened.pop(name).device.close()

    def check_path(self, contents: Contents, path: Path) -> None:
        """Compare every byte of a device or file."""
        self._check(contents, read_all(path))

    def contents_of(self, record: Record) -> Contents:
        """Return what a disk must hold, in its generation."""
        key = (record.name, record.generation)
        if key not in self._contents:
            self._contents[key] = Contents(*key, self.bases[record.wanted.base])
        return self._contents[key]

    def _check(self, contents: Contents, data: bytes) -> None:
        contents.check(data)
        self.bytes_checked += len(data)

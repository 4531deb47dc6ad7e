"""Keeping what is intact of a damaged log: its first events, as they are, in a new file.

The damaged file is only read. The new one has the same events with the same hashes, the same root
id, and records made from these events. What happened later is not in it: the next pass of a
reconciler finds the difference to the kernel and records it as drift.
May be imported by `reconciler.cli`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from statemachine import newlog, proof
from statemachine.errors import LogDamaged
from statemachine.events import GENESIS, Event
from statemachine.head import Noted
from statemachine.logreader import LogReader

_EVENTS_AT_ONCE: Final = 1000


@attrs.frozen(kw_only=True)
class Salvaged:
    """What was kept. `seq` and `hash` are the head of the new log."""

    seq: int
    hash: str
    disks: int
    lost: str
    """What is wrong with the event after the last intact one; "" if that was the end."""
    has_root_id: bool
    """Whether the root's identity could be read; else the new log has one of its own, and the
    loop devices of bases that are in use are not its own."""


def salvage(log: LogReader, target: Path) -> Salvaged:
    """Write the intact events of a log into a new one.

    Args:
        log: opened for reading, leniently.
        target: the new file; it and its folder's `head` must not exist.

    Raises:
        RefusedError: there is something in the target's place.
        LogUnavailable: the target cannot be written.
    """
    newlog.refuse_taken(target, "the intact events are")
    try:
        begin = log.at_one_moment(newlog.beginning)
    except LogDamaged:  # then there is no event 1 to begin with either, and nothing is intact
        begin = newlog.Beginning()
    events = _Intact(log)
    disks = newlog.write(target, root_id=log.root_id, begin=begin, events=events)
    last = events.last
    return Salvaged(
        seq=last.seq, hash=last.hash, disks=disks, lost=events.lost, has_root_id=bool(log.root_id)
    )


class _Intact(Iterator[Event]):
    """The intact events; how they end is told instead of raised."""

    def __init__(self, log: LogReader) -> None:
        self._events = proof.intact(log)
        self.lost = ""
        self.last = Noted(0, GENESIS)

    def __next__(self) -> Event:
        try:
            event = next(self._events)
        except LogDamaged as error:
            self.lost = error.message
            raise StopIteration from error
        self.last = Noted(event.seq, event.hash)
        return event

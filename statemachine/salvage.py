"""Keeping what is intact of a damaged log: its first events, as they are, in a new file.

The damaged file is only read. The new one has the same events with the same hashes, the same root
id, and records made from these events. What happened later is not in it: the next pass of a
reconciler finds the difference to the kernel and records it as drift.
May be imported by `reconciler.cli`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from statemachine import database, proof
from statemachine.batch import write_events
from statemachine.errors import LogDamaged, RefusedError
from statemachine.eventlog import EventLog
from statemachine.events import GENESIS, Event
from statemachine.head import Noted

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


def salvage(log: EventLog, target: Path) -> Salvaged:
    """Write the intact events of a log into a new one.

    Args:
        log: opened for reading, leniently.
        target: the new file; it and its folder's `head` must not exist.

    Raises:
        RefusedError: there is something in the target's place.
        LogUnavailable: the target cannot be written.
    """
    for taken in (target, target.with_name("head")):
        if taken.exists() or taken.is_symlink():
            msg = f"{taken} exists; the intact events are written to a new file in another folder"
            raise RefusedError(msg, hint="name a file in an empty folder")
    last, lost = Noted(0, GENESIS), ""
    connection = database.open_log(target, read_only=False)
    try:
        with database.told_apart(target), database.write_lock(connection):
            if log.root_id:
                change = "UPDATE meta SET value = ? WHERE key = 'root_id'"
                connection.execute(change, (log.root_id,))
            events = _Intact(log)
            while page := list(itertools.islice(events, _EVENTS_AT_ONCE)):
                write_events(connection, page)
                last = Noted(page[-1].seq, page[-1].hash)
            lost = events.lost
    finally:
        connection.close()
    with EventLog(target) as made:
        disks = made.rebuild_projection()
        made.head.note(last)
    return Salvaged(
        seq=last.seq, hash=last.hash, disks=disks, lost=lost, has_root_id=bool(log.root_id)
    )


class _Intact(Iterator[Event]):
    """The intact events; how they end is told instead of raised."""

    def __init__(self, log: EventLog) -> None:
        self._events = proof.intact(log)
        self.lost = ""

    def __next__(self) -> Event:
        try:
            return next(self._events)
        except LogDamaged as error:
            self.lost = error.message
            raise StopIteration from error

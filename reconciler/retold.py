"""What the log is told when a backup takes its place: which one, and whose wishes are held back.

`byre log restore` tells it before the file is in place. Somebody may also copy a backup there by
hand. The file says itself that it is a backup, and up to where, so the next reconciler tells it
before its first pass. Appends nothing itself. May be imported by restore and reconcile.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Final

import attrs

from reconciler import heldback
from statemachine import history, payloads
from statemachine.errors import UsageError
from statemachine.eventlog import EventLog
from statemachine.events import CORRELATION_BYTES, EventType, NewEvent
from statemachine.names import HOST
from statemachine.record import Record
from statemachine.statement import parse

_MESSAGE: Final = "it was said before event {seq}, up to which the log was restored"


def dangerous(records: Iterable[Record], *, until: int) -> list[str]:
    """Return the disks whose wish of before an event must not be acted upon unasked."""
    return [
        record.name
        for record in records
        if record.declared_seq <= until and record.held is None and heldback.is_dangerous(record)
    ]


def events(
    told: payloads.LogRestored, names: Iterable[str], *, actor: str, reason: str = ""
) -> list[NewEvent]:
    """Return what is appended: what was restored, then each disk that is held back."""
    names = tuple(names)
    first = NewEvent(
        disk=HOST,
        type=payloads.type_of(told),
        data=payloads.to_data(attrs.evolve(told, held=len(names))),
        actor=actor,
        reason=reason,
        correlation_id=secrets.token_hex(CORRELATION_BYTES),
    )
    hold = payloads.DiskHeld(message=_MESSAGE.format(seq=told.from_seq))
    kind, data = payloads.type_of(hold), payloads.to_data(hold)
    return [first, *(attrs.evolve(first, disk=name, type=kind, data=data) for name in names)]


def of_a_copy_by_hand(log: EventLog) -> list[NewEvent]:
    """Return what a log is to be told that is a backup and does not say so; mostly nothing."""
    noted = log.backup_head()
    if not noted:
        return []
    try:
        head = parse(noted, "the head of a backup")
    except UsageError:  # who wrote that did not make a backup
        return []
    newest = history.newest_of(log, EventType.LOG_RESTORED)
    if head.seq is None or (newest is not None and newest.seq > head.seq):
        return []
    told = payloads.LogRestored(backup="", from_seq=head.seq, from_hash=head.hash)
    names = dangerous(log.records(), until=head.seq)
    return events(told, names, actor="reconciler", reason="a backup was put in place by hand")

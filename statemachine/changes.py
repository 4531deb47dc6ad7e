"""What changed between two moments of a log, disk by disk and field by field.

Reads only. May be imported by `reconciler`.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from statemachine import payloads, timetravel
from statemachine.logreader import LogReader
from statemachine.record import Record

_OF_EVERY_EVENT = frozenset({"seq", "version", "updated_at", "correlation_id"})
"""Fields that move with each event, and say nothing of the disk."""


@attrs.frozen(kw_only=True)
class FieldChange:
    """One field, before and after, as plain data."""

    field: str
    before: object
    after: object


@attrs.frozen(kw_only=True)
class DiskChange:
    """One disk that is not what it was."""

    disk: str
    change: str
    """"declared" for one that there was not before, "removed" for one that there is no more, or
    "changed"."""
    fields: tuple[FieldChange, ...]


def between(log: LogReader, before: int, after: int) -> Iterator[DiskChange]:
    """Yield the disks that differ between two events, by name.

    Args:
        log: an open log.
        before: the seq of the event after which is looked first.
        after: the other one; may be the earlier of both, and then it is told backwards.

    Raises:
        UsageError, LogDamaged: see `timetravel.moment`.
    """
    old = {record.name: record for record in timetravel.moment(log, before).records}
    new = {record.name: record for record in timetravel.moment(log, after).records}
    for name in sorted(old.keys() | new.keys()):
        ours = old.get(name) or timetravel.disk_at(log, name, before)
        theirs = new.get(name) or timetravel.disk_at(log, name, after)
        fields = tuple(_fields(ours, theirs))
        if not fields:
            continue
        change = "changed"
        if name not in old:
            change = "declared"
        elif name not in new:
            change = "removed"
        yield DiskChange(disk=name, change=change, fields=fields)


def _fields(before: Record | None, after: Record | None) -> Iterator[FieldChange]:
    old = payloads.to_data(before) if before else {}
    new = payloads.to_data(after) if after else {}
    for field in sorted(old.keys() | new.keys()):
        if field in _OF_EVERY_EVENT or old.get(field) == new.get(field):
            continue
        yield FieldChange(field=field, before=old.get(field), after=new.get(field))

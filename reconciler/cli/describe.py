"""One disk in the words of the contract: what `get -o json` gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from statemachine.conditions import conditions
from statemachine.errors import ByreError
from statemachine.lineage import Point
from statemachine.record import Record
from statemachine.spec import DiskSpec
from statemachine.units import Bytes
from statemachine.utc import iso

Allocated = Callable[[str], Bytes]


def disk(record: Record, allocated: Allocated) -> dict[str, Any]:
    """Return a disk with the fields that scripts rely on (docs/reference/commands.md).

    Args:
        record: the disk.
        allocated: `Kernel.allocated`, what a file occupies.
    """
    spec = record.wanted
    failure = record.failure
    retry_at = failure.retry_at if failure else None
    return {
        "name": record.name,
        "id": record.id,
        "generation": record.generation,
        "state": record.state,
        "desired": record.desired,
        "driver": record.driver or spec.driver,
        "device": record.device or None,
        "link": str(spec.link) if spec.link else None,
        "jail": _jail(record, spec),
        "base": str(spec.base),
        "size_bytes": record.size.count,
        "cow": _cow(record, spec, allocated),
        "persistent": spec.persistent,
        "parent": _parent(record),
        "points": [point(each, allocated) for each in record.points],
        "rewind_to": record.rewind.point if record.rewind else None,
        "lifetime": lifetime(record),
        "conditions": [
            {
                "type": each.type,
                "status": each.status,
                "reason": each.reason,
                "message": each.message,
                "since": iso(each.since),
            }
            for each in conditions(record)
        ],
        "attempts": record.attempts,
        "next_retry_at": iso(retry_at) if retry_at else None,
        "seq": record.seq,
        "version": record.version,
    }


def lifetime(record: Record) -> dict[str, Any]:
    """Return how long a disk is wanted, and whether that is over."""
    spec = record.wanted.lifetime
    return {
        "expires_at": iso(record.expires_at) if record.expires_at is not None else None,
        "ttl_s": spec.ttl_s,
        "on_expiry": spec.on_expiry,
        "idle_pause_s": spec.idle_pause_s,
        "lapsed": record.lapsed.cause if record.lapsed else None,
    }


def _parent(record: Record) -> dict[str, Any] | None:
    """Return which disk it was forked off, and how."""
    parent = record.parent
    if parent is None:
        return None
    return {
        "name": parent.name,
        "id": parent.id,
        "generation": parent.generation,
        "point": parent.point or None,
        "seq": parent.seq,
        "how": parent.how,
        "frozen_ms": parent.frozen_ns / 1e6,
    }


def point(kept: Point, allocated: Allocated) -> dict[str, Any]:
    """Return a kept point of a disk."""
    return {
        "name": kept.name,
        "at": iso(kept.at),
        "path": kept.path,
        "how": kept.how,
        "used_bytes": _allocated(kept.path, allocated),
    }


def _jail(record: Record, spec: DiskSpec) -> dict[str, Any] | None:
    """Return the node in the disk's jail, with the number that it has while the disk is live."""
    jail = spec.jail
    if jail is None:
        return None
    number = record.jail_number or None
    return {"node": str(jail.path), "number": number, "uid": jail.uid, "gid": jail.gid}


def _cow(record: Record, spec: DiskSpec, allocated: Allocated) -> dict[str, Any]:
    """Return the disk's own file: the room it takes now, and what it can grow to."""
    used = 0
    if record.cow is not None:
        used = _allocated(record.cow_path, allocated)
    return {
        "path": record.cow_path if record.cow is not None else None,
        "used_bytes": used,
        "capacity_bytes": record.cow.size.count if record.cow is not None else 0,
        "chunk_bytes": spec.chunk_size.count,
        "direct_io": spec.direct_io,
    }


def _allocated(path: str, allocated: Allocated) -> int:
    """Return the room that a file takes; 0 where it is not ours to see."""
    try:
        return allocated(path).count
    except ByreError:
        return 0  # the record is still worth showing

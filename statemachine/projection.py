"""What a disk has become: its record, made of nothing but its events, in their order.

`apply` is the whole of it: the same events give the same record, in the log's transaction, in a
replay and in a test. The table `disks` is made of it, and can be thrown away and rebuilt.

Pure; may be imported by what reads or writes events, in `statemachine` and in `reconciler`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from statemachine import ending, failures, handover, keeping, payloads, setbacks, smaller
from statemachine.errors import ForeignDevice
from statemachine.events import Event
from statemachine.fileidentity import FileIdentity
from statemachine.jail import path_in
from statemachine.machine import GONE, LIVE, State, Trigger, is_met
from statemachine.names import HOST
from statemachine.plight import InFlight
from statemachine.record import Record
from statemachine.units import Bytes

_NOT_LIVE: Final[dict[str, Any]] = {
    "device": "",
    "device_number": "",
    "base_loop": None,
    "cow_loop": None,
    "link": "",
    "link_target": "",
    "jail_node": "",
    "jail_number": "",
    "frozen": None,
}
_REMOVED: Final[dict[str, Any]] = {
    "made_folders": (), "cow": None, "fault": None, "points": (), "rewind": None,
}  # fmt: skip

_OF_THE_SPEC: Final = ("wanted", "desired")  # what a record keeps until it has another spec
Changes = dict[str, Any]  # what an event changes of a record: fields and their values


def apply(record: Record | None, event: Event, payload: object = None) -> Record | None:
    """Return the record after an event.

    Args:
        record: the record before, None for a disk that the log has not spoken of.
        event: the next event of this disk.
        payload: what the event's data says; None to read it.

    Returns:
        The record after it. Host events leave None; a type this version does not know moves
        nothing but `version` and `seq`.

    Raises:
        ValueError: the payload does not fit its type, or a disk's first event is no declaration.
    """
    if payload is None:
        payload = payloads.read(event)
    if record is None or event.generation > record.generation:
        return _begun(record, event, payload)
    made = object.__new__(Record)  # `attrs.evolve` without the forty arguments
    made.__dict__.update(record.__dict__)
    _change(made, _changes(record, event, payload))
    return made


def move(record: Record | None, event: Event) -> Record | None:
    """Do what `apply` does, to the record itself: for its owner, as a copy takes half the time."""
    payload = payloads.read(event)
    if record is None or event.generation > record.generation:
        return _begun(record, event, payload)
    _change(record, _changes(record, event, payload))
    return record


def _change(record: Record, changes: Changes) -> None:
    record.__dict__.update(changes)
    if "spec" in changes:
        for made_of_it in _OF_THE_SPEC:
            record.__dict__.pop(made_of_it, None)


def _changes(record: Record, event: Event, payload: object) -> Changes:
    changes = {"version": event.version, "seq": event.seq, "updated_at": event.at}
    handler = _HANDLERS.get(type(payload))
    if handler is not None:
        changes |= handler(record, event, payload)
    return changes


def _begun(record: Record | None, event: Event, payload: object) -> Record | None:
    """Return the record of a generation's first event; the record before is of an older one."""
    if not isinstance(payload, payloads.DiskDeclared):
        if record is None and (event.disk == HOST or payload is None):
            return None
        if record is not None:  # nothing but a declaration begins one, and the log knows it
            return attrs.evolve(record, **_changes(record, event, payload))
        msg = f"event {event.seq}: {event.type} of {event.disk!r}, which was never declared"
        raise ValueError(msg)
    if not payload.id or payload.base is None:
        msg = f"event {event.seq}: it begins a generation of {event.disk!r} without id or base"
        raise ValueError(msg)
    return Record(
        name=event.disk,
        id=payload.id,
        generation=event.generation,
        version=event.version,
        seq=event.seq,
        state=State.ABSENT,
        state_since=event.at,
        base=payload.base,
        base_boot_id=event.boot_id,
        device_name=payload.device_name,
        boot_id=event.boot_id,
        correlation_id=event.correlation_id,
        created_at=event.at,
        updated_at=event.at,
        declared_seq=event.seq,
        link_from=payload.link_from,
        link_taken=payload.link_taken,
        parent=payload.forked_from,
        **ending.told(payload, {}, event.at),
    )


def _declared(record: Record, event: Event, payload: payloads.DiskDeclared) -> Changes:
    changes: Changes = {
        "declared_seq": event.seq,
        "correlation_id": event.correlation_id,
        **ending.told(payload, record.spec, event.at),
    }
    if payload.sparsify:
        changes["sparsify_due"] = True
    return changes | handover.told(record, payload) | keeping.told(payload)


def _started(record: Record, event: Event, payload: payloads.TransitionStarted) -> Changes:
    begun: Changes = {}
    if payload.target in LIVE:
        begun["links_begun"] = _with(record.links_begun, record.spec.get("link"))
        begun["nodes_begun"] = _with(record.nodes_begun, path_in(record.spec))
    if payload.cow_path:
        begun["cow_path"] = payload.cow_path
    if payload.made_folders:
        folders = dict.fromkeys((*record.made_folders, *payload.made_folders))
        begun["made_folders"] = tuple(folders)
    return begun | {
        "driver": payload.driver,
        "driver_reason": payload.driver_reason,
        "in_flight": InFlight(
            trigger=payload.trigger,
            source=payload.source,
            target=payload.target,
            seq=event.seq,
            attempt=payload.attempt,
        ),
    }


def _with(places: tuple[str, ...], place: str | None) -> tuple[str, ...]:
    return (*places, place) if place and place not in places else places


def _completed(record: Record, event: Event, payload: payloads.TransitionCompleted) -> Changes:
    settled: Changes = {
        "state": payload.target,
        "state_since": record.state_since if payload.target is record.state else event.at,
        "boot_id": event.boot_id,
        "attempts": 0,
        # To attach a disk touches no link: what an earlier try began may still be there.
        "links_begun": record.links_begun if payload.trigger is Trigger.ATTACH else (),
        "nodes_begun": record.nodes_begun if payload.trigger is Trigger.ATTACH else (),
        "link_taken": handover.taken_after(record, payload),
        "in_flight": None,
        "failure": None,
        **smaller.after(record, payload),
    }
    if payload.target is State.REMOVED:
        return settled | _NOT_LIVE | _REMOVED
    if payload.trigger is Trigger.REWIND:
        settled |= {"rewind": None, "cow_level": 0}
    if not payload.cow_is_other:
        settled |= {"cow": _cow_after(record, payload), "cow_boot_id": event.boot_id}
    if payload.target is State.PAUSED:
        return settled | _NOT_LIVE
    return dict(
        settled,
        cow_method=payload.cow_method or record.cow_method,
        device=payload.device,
        device_number=payload.device_number,
        base_loop=payload.base_loop,
        cow_loop=payload.cow_loop,
        link=payload.link,
        link_target=payload.link_target or (payload.device if payload.link else ""),
        jail_node=payload.jail_node,
        jail_number=payload.jail_number,
    )


def _cow_after(record: Record, payload: payloads.TransitionCompleted) -> FileIdentity | None:
    if payload.cow is not None or record.cow is None or payload.cow_mtime_ns is None:
        return payload.cow or record.cow
    told = {name: getattr(record.cow, name) for name in ("device", "inode", "size", "kind")}
    return FileIdentity(**told, mtime_ns=payload.cow_mtime_ns)  # `attrs.evolve` takes longer


def _failed(record: Record, event: Event, payload: payloads.TransitionFailed) -> Changes:
    return {
        "attempts": payload.attempt,
        # Whatever was in the way was there before, and is not to be taken for what was begun.
        "links_begun": () if payload.kind == ForeignDevice.kind else record.links_begun,
        "nodes_begun": () if payload.kind == ForeignDevice.kind else record.nodes_begun,
        "in_flight": None,
        "failure": failures.after(record.failure, payload, at=event.at),
    }


def _drifted(record: Record, event: Event, payload: payloads.DriftDetected) -> Changes:
    if payload.trigger is Trigger.REPAIR:
        return {"correlation_id": event.correlation_id}
    changed: Changes = {"correlation_id": event.correlation_id}
    if payload.trigger in GONE:
        # These outlive their device, and must be found again even if others are wanted by then.
        kept = ("link", "link_target", "jail_node", "jail_number")
        changed |= _NOT_LIVE | {field: getattr(record, field) for field in kept}
    if payload.cow is not None:
        changed |= {"cow": payload.cow, "cow_boot_id": event.boot_id}
        changed |= {"cow_path": payload.cow_path, "driver": payload.driver}
    if is_met(payload.target, record.desired):
        changed |= {"failure": None, "attempts": 0}  # what was failing is not needed any more
    moved = {"state": payload.target, "state_since": event.at, "boot_id": event.boot_id}
    return changed | moved | {"in_flight": None}


def _level_crossed(_: Record, __: Event, payload: payloads.CowThresholdCrossed) -> Changes:
    return {"cow_level": payload.percent}


def _grown(record: Record, _: Event, payload: payloads.CowGrown) -> Changes:
    if record.cow is None:
        return {}
    cow = attrs.evolve(record.cow, size=Bytes(payload.to_bytes))
    return {"cow": cow, "cow_level": 0}


_HANDLERS: Final[dict[type, Callable[[Record, Event, Any], Changes]]] = {
    payloads.DiskDeclared: _declared,
    payloads.TransitionStarted: _started,
    payloads.TransitionCompleted: _completed,
    payloads.TransitionFailed: _failed,
    payloads.DriftDetected: _drifted,
    payloads.DiskFaulted: setbacks.faulted,
    payloads.DiskRecovered: setbacks.recovered,
    payloads.DiskHeld: setbacks.held,
    payloads.DiskCheckpointed: keeping.checkpointed,
    payloads.DiskPointsDropped: keeping.dropped,
    payloads.CowThresholdCrossed: _level_crossed,
    payloads.CowGrown: _grown,
    payloads.DiskFrozen: setbacks.frozen,
    payloads.DiskThawed: setbacks.thawed,
}

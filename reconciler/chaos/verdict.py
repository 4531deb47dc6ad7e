"""The judgement: is everything as it was asked to be, and is what is not explained?

Each question returns what is wrong, in words; nothing is good. May be imported by the package
only.
"""

from __future__ import annotations

from reconciler.chaos.leaks import leaks
from reconciler.chaos.meddling import FOREIGN
from reconciler.chaos.model import BROKEN_KINDS, Model, key_of
from reconciler.chaos.wishes import unread
from reconciler.chaos.world import LINKS, World
from reconciler.orphans import survey
from reconciler.outcome import is_there
from statemachine import history
from statemachine.errors import ByreError
from statemachine.events import EventType
from statemachine.machine import LIVE, State, Trigger, path
from statemachine.names import UUID_PREFIX
from statemachine.record import Record

_OUTCOMES = (EventType.TRANSITION_COMPLETED, EventType.TRANSITION_FAILED)


def foreign(world: World, model: Model) -> list[str]:
    """Compare what is not byre's with what was planted."""
    host = world.kernel.host
    devices = {
        device.name: device.uuid
        for device in host.mapper.devices()
        if not device.uuid.startswith(UUID_PREFIX)
    }
    loops = {
        loop.number: loop.file.inode
        for loop in host.loops.bound()
        if loop.file is not None and not loop.marker.startswith(UUID_PREFIX)
    }
    planted = {loop.number: loop.inode for loop in model.foreign_loops}
    wrong = [f"foreign devices are {devices}"] if devices != model.foreign_dm else []
    wrong += [f"foreign loops are {loops}, not {planted}"] if loops != planted else []
    node = host.tree.find(FOREIGN)
    if node is not None and world.kernel.read(FOREIGN, 0, 7) != b"foreign":
        wrong.append(f"{FOREIGN} was written to")
    return wrong


def after_healing(world: World, model: Model) -> list[str]:
    """Every disk is there, or waits for a person with a reason that this run gave it."""
    wrong = _as_asked(world, model)
    for record in world.log.records():
        ill = record.fault or record.failure
        if is_there(record) or _has_no_way(record):
            continue
        if ill is None:
            wrong.append(f"{record.name} is {record.state}, not {record.desired}, and tells no why")
        elif ill.kind not in model.explained and not _was_being_removed(world, record):
            wrong.append(f"{record.name}: nothing broken explains {ill.kind}: {ill.message}")
        elif not ill.message:
            wrong.append(f"{record.name} has {ill.kind}, and tells no why")
    return wrong


def after_retrying(world: World, model: Model) -> list[str]:
    """Every disk is there but those whose data this run destroyed; nothing is leaked."""
    wrong = _as_asked(world, model)
    for record in world.log.records():
        is_lost = key_of(record) in model.lost
        given_up = is_lost or _was_being_removed(world, record)
        if given_up and record.fault is not None and record.fault.kind in BROKEN_KINDS:
            continue
        had_data = key_of(record) in model.deleted and bool(model.written[key_of(record)])
        if had_data and record.fault is None and record.state is not State.REMOVED:
            wrong.append(f"{record.name} has lost its data, and is {record.state} as if not")
        if not is_there(record) and not _has_no_way(record):
            wrong.append(f"{record.name} is not there: {_state(record)}")
    return [*wrong, *leaks(world), *data(world, model), *_orphans(world)]


def data(world: World, model: Model) -> list[str]:
    """Everything that was flushed to a disk that is live now reads back."""
    return [
        text
        for record in world.log.records()
        if record.state in LIVE and record.fault is None
        for text in unread(world, model, record, strictly=True)
    ]


def after_removing(world: World, model: Model) -> list[str]:
    """Every disk is removed and nothing is left of any."""
    wrong = [
        f"{record.name} is not removed: {_state(record)}"
        for record in world.log.records()
        if not is_there(record)
    ]
    left = [
        f"{LINKS / name} is left"
        for name in world.kernel.names_in(LINKS)
        if LINKS / name not in model.own_folders
    ]
    return [*wrong, *leaks(world), *left, *_orphans(world)]


def the_log(world: World) -> list[str]:
    """The chain holds, a replay gives the records, and each intent has an outcome or an heir."""
    try:
        history.verify(world.log)
    except ByreError as error:
        return [f"the log does not verify: {error.message}"]
    wrong = [f"a replay differs: {each}" for each in history.compare(world.log)]
    return wrong + _unexplained(world)


def _unexplained(world: World) -> list[str]:
    opened: dict[str, int] = {}
    wrong: list[str] = []
    for event in world.log.events():
        if event.type == EventType.TRANSITION_STARTED:
            resumes, before = event.data.get("resumes"), opened.get(event.disk)
            if before != resumes:
                wrong.append(f"event {event.seq} of {event.disk} resumes {resumes}, not {before}")
            opened[event.disk] = event.seq
        elif event.type in (*_OUTCOMES, EventType.DRIFT_DETECTED, EventType.DISK_FAULTED):
            opened.pop(event.disk, None)
    return wrong + [f"event {seq} of {disk} has no outcome" for disk, seq in opened.items()]


def _has_no_way(record: Record) -> bool:
    """Tell whether a disk that should be attached was found live: no trigger leads back."""
    return path(record.state, record.desired) is None


def _was_being_removed(world: World, record: Record) -> bool:
    """Tell whether the file went because a removal had begun, before somebody wanted it back."""
    events = world.log.select("WHERE disk = ? AND generation = ?", record.name, record.generation)
    started = (event for event in events if event.type == EventType.TRANSITION_STARTED)
    return any(event.data["trigger"] == Trigger.REMOVE for event in started)


def _as_asked(world: World, model: Model) -> list[str]:
    records = world.records()
    return [
        f"{name} was asked to be {desired}, its record says {records[name].desired}"
        for name, desired in model.asked.items()
        if records[name].desired is not desired
    ]


def _orphans(world: World) -> list[str]:
    found = survey(world.log, world.kernel, world.root)
    loose = (each for each in found if not _is_faulted(world, each.owner))
    return [f"orphan {each.name}: {each.evidence}" for each in loose]


def _is_faulted(world: World, owner: object) -> bool:
    return any(key_of(record) == owner and record.fault for record in world.log.records())


def _state(record: Record) -> str:
    ill = record.fault or record.failure
    return f"{record.state}, {record.desired} is desired; {ill.kind if ill else 'no reason'}" + (
        f": {ill.message}" if ill else ""
    )

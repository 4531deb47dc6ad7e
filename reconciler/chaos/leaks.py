"""What a simulated host has of byre that no disk accounts for, and what is missing. Only looks.

Whole sets are compared, so nothing is overlooked for want of a question about it. What belongs to
a faulted disk is left out: byre leaves that as it was found. May be imported by the package only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from reconciler.chaos.meddling import MAPPER
from reconciler.chaos.world import LINKS, PREFIX, World
from statemachine.machine import LIVE, State
from statemachine.names import UUID_PREFIX, DmUuid, base_marker, cow_marker
from statemachine.observed import LinkKind
from statemachine.record import Record
from statemachine.spec import DriverChoice

HOLDS_BASE = LIVE | {State.ATTACHED}
_IN_FOLDER = (State.ABSENT, State.REMOVED)


def leaks(world: World) -> list[str]:
    """Return every difference between what the records say there is and what there is."""
    records = list(world.log.records())
    owned = [record for record in records if record.fault is None]
    faulted = [record for record in records if record.fault is not None]
    out = {str(DmUuid(record.id, record.generation)) for record in faulted}
    nodes = {record.device_name for record in faulted}
    wanted, found = Counter(_wanted(owned)), Counter(_found(world, out, nodes))
    if len(owned) < len(records):
        # Whether a faulted disk still holds its base's loop is for the kernel to say.
        for counter in (wanted, found):
            for name in [each for each in counter if each.startswith("base loop")]:
                del counter[name]
    extra = [f"{name} is leaked ({count})" for name, count in sorted((found - wanted).items())]
    missing = [f"{name} is missing ({count})" for name, count in sorted((wanted - found).items())]
    return [*extra, *missing, *_links(world, owned)]


def _wanted(records: list[Record]) -> Iterator[str]:
    bases = set()
    for record in records:
        marker = cow_marker(record.id, record.generation)
        real = record.driver == DriverChoice.DM_SNAPSHOT
        if record.state in LIVE and real:
            yield f"device {marker} as {record.device_name}"
            yield f"node {record.device_name}"
        if record.state in HOLDS_BASE:
            yield f"loop {marker}"
            bases |= {record.wanted.base} if real else set()
        if record.state not in _IN_FOLDER:
            yield f"file {UUID_PREFIX}{record.cow_path.rsplit('/', 1)[1].rsplit('.', 1)[0]}"
    for base in sorted(bases):
        yield f"base loop on {base}"


def _found(world: World, left_out: set[str], nodes: set[str]) -> Iterator[str]:
    host = world.kernel.host
    for device in host.mapper.devices():
        if device.uuid.startswith(UUID_PREFIX) and device.uuid not in left_out:
            yield f"device {device.uuid} as {device.name}"
            if world.kernel.look_at_link(MAPPER / device.name).target == f"../{device.sysname}":
                yield f"node {device.name}"
    yield from _files_and_loops(world, left_out)
    for name in world.kernel.names_in(MAPPER):
        if name not in nodes and name.startswith(PREFIX) and host.mapper.by_name(name) is None:
            yield f"dangling node {name}"


def _files_and_loops(world: World, left_out: set[str]) -> Iterator[str]:
    for loop in world.kernel.host.loops.bound():
        if loop.marker == base_marker(world.log.root_id) and loop.file is not None:
            yield f"base loop on {loop.file.path}"
        elif loop.marker.startswith(UUID_PREFIX) and loop.marker not in left_out:
            yield f"loop {loop.marker}"
    for name in world.kernel.names_in(world.root.cows):
        owner = f"{UUID_PREFIX}{name.rsplit('.', 1)[0]}"
        if owner not in left_out:
            yield f"file {owner}"


def _links(world: World, records: list[Record]) -> Iterator[str]:
    """Compare each disk's link, and what is left in the folders of links."""
    for record in records:
        path = LINKS / record.name / "rootfs.link"
        there = world.kernel.look_at_link(path)
        if record.state in LIVE and record.wanted.link is not None:
            if there.kind is not LinkKind.SYMLINK or there.target != record.device:
                yield f"link {path} leads to {there.target or there.kind}, not to {record.device}"
        elif there.kind is LinkKind.SYMLINK:
            yield f"link {path} is leaked"

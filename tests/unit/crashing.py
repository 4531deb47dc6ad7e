"""What the crash tests share: scenarios, points at which the process dies, and what must hold then.

A point is a call of the Kernel port, a question too, or a commit of the log; all are counted in
one order. To die before a call is to die after the one before it: what the process had in memory
is lost both times, and nothing durable happens in between. So dying after each call, and once
before the first, is every crash there is. Only changes and commits are `durable`: to die after a
question leaves what dying after the last of those left.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from reconciler.kernel.sim import SimCrash
from statemachine.batch import Request
from statemachine.events import NewEvent
from statemachine.machine import LIVE, Desired, State
from statemachine.names import DmUuid, base_marker, cow_marker
from statemachine.observed import Loop, SnapshotTable
from statemachine.units import Sectors
from tests.torture import story
from tests.unit.builders import BASE, JAIL, LINK, MIB, NODE, Stage

Step = Callable[[Stage], object]

DATA, AT = b"flushed before the crash", 3 * 4096
RESTARTS_MAX = 5
COMMIT = "commit"


def declare(state: Desired) -> Step:
    return lambda stage: stage.declare(state=state, link=LINK, jail=JAIL)


def spoil(stage: Stage) -> None:
    """Take link and node away and suspend the device, as a clumsy administrator would."""
    stage.kernel.delete(LINK)
    stage.kernel.delete(NODE)
    stage.kernel.suspend_dm_by_hand("byre-sb-1")


def take_device(stage: Stage) -> None:
    stage.kernel.remove_dm_by_hand("byre-sb-1")


def take_loop(stage: Stage) -> None:
    number = stage.record().cow_loop
    assert number is not None
    assert stage.kernel.detach_loop_by_hand(number)


def make_device(stage: Stage) -> None:
    """Bring a disk live by hand, on the loops that are there or on new ones."""
    record, kernel = stage.record(), stage.kernel
    uuid = str(DmUuid(record.id, record.generation))
    origin = _loop(stage, BASE, base_marker(stage.byre.log.root_id), read_only=True)
    cow = _loop(stage, Path(record.cow_path), cow_marker(record.id, record.generation))
    kernel.dm_create(record.device_name, uuid)
    table = SnapshotTable(length=Sectors(MIB // 512), origin=origin.device, cow=cow.device)
    kernel.dm_load(uuid, table)
    kernel.dm_resume(uuid)


def make_wanted_device(stage: Stage) -> None:
    """Bring an attached disk live by hand, and then ask for that."""
    make_device(stage)
    declare(Desired.LIVE)(stage)


def _loop(stage: Stage, path: Path, marker: str, *, read_only: bool = False) -> Loop:
    file = stage.kernel.identify(path)
    assert file is not None
    there = [loop for loop in stage.kernel.loops() if loop.marker == marker]
    if there:
        return there[0]
    return stage.kernel.loop_attach(path, file, marker=marker, read_only=read_only)


def checkpoint_and_write(stage: Stage) -> None:
    """Keep a point, and spoil the disk afterwards."""
    stage.kernel.host.tree.get(BASE).fs.reflink = True  # a live clone is kept in no other way
    stage.byre.checkpoint("sb-1", "clean")
    stage.kernel.write(LINK, AT, b"spoiled".ljust(len(DATA)))
    stage.kernel.flush(LINK)


def go_back(stage: Stage) -> None:
    stage.byre.go_back("sb-1", "clean")


LIFE: tuple[Step, ...] = (declare(Desired.LIVE), declare(Desired.PAUSED), declare(Desired.LIVE))
LIFE_WITH_POINT: tuple[Step, ...] = (declare(Desired.LIVE), checkpoint_and_write)

SCENARIOS: dict[str, tuple[Sequence[Step], Step]] = {
    "attach": ([], declare(Desired.ATTACHED)),
    "snapshot": ([declare(Desired.ATTACHED)], declare(Desired.LIVE)),
    "pause": (LIFE[:1], declare(Desired.PAUSED)),
    "restore": (LIFE[:2], declare(Desired.LIVE)),
    "pause-restored": (LIFE, declare(Desired.PAUSED)),
    "remove-attached": ([declare(Desired.ATTACHED)], declare(Desired.REMOVED)),
    "remove-live": (LIFE[:1], declare(Desired.REMOVED)),
    "remove-paused": (LIFE[:2], declare(Desired.REMOVED)),
    "lose": (LIFE[:1], take_device),
    "lose-attached": ([declare(Desired.ATTACHED)], take_loop),
    "find": (LIFE[:2], make_device),
    "find-attached": ([declare(Desired.ATTACHED)], make_wanted_device),
    "repair": (LIFE[:1], spoil),
    "whole-way-up": ([], declare(Desired.LIVE)),
    "rewind-live": (LIFE_WITH_POINT, go_back),
    "rewind-paused": ((*LIFE_WITH_POINT, declare(Desired.PAUSED)), go_back),
    "remove-with-point": (LIFE_WITH_POINT, declare(Desired.REMOVED)),
}
CLONED = tuple(name for name in SCENARIOS if not name.startswith(("lose", "find", "repair")))
"""The scenarios of the driver that needs no device-mapper."""


@attrs.define(eq=False)
class Rig:
    """A stage right before a scenario's own step is worked on."""

    stage: Stage
    cow: bytes | None
    """What a disk with data had in its file; None for one without."""
    began: int
    """How many calls there were before."""

    def die_after(self, point: int) -> None:
        """Let the process die after a call of this number from now on; before the first for 0."""
        faults = self.stage.kernel.faults
        if point == 0:
            faults.crash_at_call(faults.calls + 1, when="before")
        else:
            faults.crash_at_call(faults.calls + point, when="after")

    def dies(self) -> bool:
        """Go on until the process dies or comes to rest; tell which."""
        try:
            self.stage.settle()
        except SimCrash:
            return True
        return False

    def restart(self) -> bool:
        """Start the next process; tell whether it died at once."""
        try:
            self.stage.restart()
        except SimCrash:
            return True
        count_commits(self.stage)
        return False

    def recovers(self) -> None:
        """Start again, and expect what a run without a crash gives."""
        stage = self.stage
        stage.kernel.faults.clear()
        assert not self.restart()
        stage.settle()
        stage.check()
        stage.check_quiet()
        assert story.unexplained_intents(stage.byre.log.events()) == []
        self.check_data()
        stage.close()

    def check_data(self) -> None:
        """Nothing that was flushed is gone, unless the disk was removed."""
        record = self.stage.record()
        if self.cow is None or record.state is State.REMOVED:
            return
        if record.state in LIVE:
            assert self.stage.kernel.read(LINK, AT, len(DATA)) == DATA
        assert self.stage.kernel.read(record.cow_path, 0, len(self.cow)) == self.cow


def count_commits(stage: Stage) -> None:
    """Count each commit of the log among the calls of the port."""
    faults, commit = stage.kernel.faults, stage.byre.log.commit

    def around(events: Sequence[NewEvent]) -> Request:
        types = tuple(event.type for event in events)
        return faults.around(COMMIT, types, {}, change=True, work=lambda: commit(events))

    stage.byre.log.commit = around  # type: ignore[method-assign]


def prepared(folder: Path, name: str, *, has_dm: bool = True) -> Rig:
    """Return a stage right before the scenario's own step, with its commits counted."""
    stage, cow = _prepared(folder, name, has_dm=has_dm)
    count_commits(stage)
    return Rig(stage, cow, stage.kernel.faults.calls)


def prepared_stage(folder: Path, name: str, *, has_dm: bool = True) -> Stage:
    """Return a stage right before the scenario's own step is worked on."""
    return _prepared(folder, name, has_dm=has_dm)[0]


def _prepared(folder: Path, name: str, *, has_dm: bool) -> tuple[Stage, bytes | None]:
    shutil.rmtree(folder / "root", ignore_errors=True)
    stage = Stage(folder)
    stage.kernel.host.dm_errno = 0 if has_dm else 19
    before, last = SCENARIOS[name]
    cow = None
    for step in before:
        step(stage)
        stage.settle()
        if cow is None and stage.record().state in LIVE:
            stage.kernel.write(LINK, AT, DATA)
            stage.kernel.flush(LINK)
            path = stage.record().cow_path
            cow = stage.kernel.read(path, 0, 2 * MIB)
    last(stage)
    stage.kernel.faults.clear()
    return stage, cow


@attrs.frozen
class Points:
    """How many calls a scenario makes, and after which of them something durable has changed."""

    count: int
    durable: tuple[int, ...]


def points_of(folder: Path, name: str, *, has_dm: bool = True) -> Points:
    """Run a scenario without a crash and return its points."""
    rig = prepared(folder, name, has_dm=has_dm)
    assert not rig.dies()
    found = _points(rig, rig.began)
    rig.recovers()
    return found


def points_of_recovery(folder: Path, name: str, first: int) -> Points:
    """Die at a point and return the points of the recovery."""
    rig = prepared(folder, name)
    rig.die_after(first)
    assert rig.dies()
    began = rig.stage.kernel.faults.calls
    assert not rig.restart()
    assert not rig.dies()
    found = _points(rig, began)
    rig.stage.close()
    return found


def _points(rig: Rig, began: int) -> Points:
    calls = [call for call in rig.stage.kernel.trace if call.number > began]
    durable = tuple(call.number - began for call in calls if call.is_change)
    return Points(rig.stage.kernel.faults.calls - began, durable)

"""A backup in the place of the log, under disks that have moved on: told, adopted, never torn down.

Each test backs the log up at some moment of a disk's life, lets the life go on, puts the backup in
place, and reconciles. Whatever is live stays live, with its number and its data; whatever has data
keeps it; nothing empty appears under an old name.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from reconciler import heldback
from reconciler.api import Byre
from reconciler.orphans import survey
from reconciler.outcome import failed_for_good, is_there
from reconciler.requester import this_process
from reconciler.restore import Restored, restore
from statemachine import history
from statemachine.backup import back_up
from statemachine.batch import Request
from statemachine.conditions import ConditionType, conditions
from statemachine.eventlog import EventLog
from statemachine.events import NewEvent
from statemachine.head import Head
from statemachine.machine import LIVE, Desired, State, Trigger
from statemachine.observed import DmDevice
from tests.unit.builders import LINK, Stage
from tests.unit.strays import drop_the_log

DATA: Final = b"kept"


@pytest.fixture
def stage(folder: Path) -> Stage:
    return Stage(folder)


def copied(stage: Stage) -> Path:
    """Back the log up as `byre log backup` does."""
    target = stage.root.parent / "backup.db"
    back_up(stage.byre.root.log, target)
    return target


def put_back(stage: Stage, source: Path) -> Restored:
    """End the reconciler, restore, and start a new one."""
    stage.close()
    begin = len(stage.kernel.trace)
    boot_id = stage.kernel.boot_id()
    done = restore(
        stage.byre.root,
        source,
        boot_id=boot_id,
        now_ns=stage.clock.now_ns,
        by=this_process(),
        reason="a test",
    )
    assert calls_since(stage, begin) == {"boot_id"}
    stage.restart()
    return done


def devices(stage: Stage) -> dict[str, DmDevice]:
    found = {line.name: stage.kernel.dm(line.name) for line in stage.kernel.dm_names()}
    return {name: device for name, device in found.items() if device is not None}


def numbers(stage: Stage) -> dict[str, tuple[str, str]]:
    return {name: (dm.uuid, str(dm.device)) for name, dm in devices(stage).items()}


def calls_since(stage: Stage, begin: int) -> set[str]:
    return {call.name for call in stage.kernel.trace[begin:]}


def is_held(stage: Stage, name: str = "sb-1") -> bool:
    return ConditionType.HELD in {each.type for each in conditions(stage.record(name))}


# --- the whole of a life, against the whole of another -------------------------------------------


class Lives:
    """Makes every moment of one disk's life a backup, and goes on from there."""

    def __init__(self, stage: Stage, until: int) -> None:
        self.stage = stage
        self.copy = stage.root.parent / "backup.db"
        self._count = 0
        self._until = until
        self._commit = stage.byre.log.commit
        stage.byre.log.commit = self._counted  # type: ignore[method-assign]

    def _counted(self, events: Sequence[NewEvent]) -> Request:
        settled = self._commit(events)
        self._count += any(event.disk == "sb-1" for event in events)
        if self._count == self._until:
            back_up(self.stage.byre.root.log, self.copy)
        return settled


def live(stage: Stage) -> None:
    record = stage.live(link=LINK)
    stage.kernel.write(record.device, 4096, DATA)


def pause(stage: Stage) -> None:
    stage.command(Trigger.PAUSE)


def resume(stage: Stage) -> None:
    stage.command(Trigger.RESTORE)


def remove(stage: Stage) -> None:
    stage.command(Trigger.REMOVE)


STEPS: Final[tuple[Callable[[Stage], None], ...]] = (live, pause, resume, remove, live, pause)
APPENDS: Final = 20
"""How many appends these steps make; the last of them is the end."""


@pytest.mark.parametrize("until", range(1, APPENDS + 1))
@pytest.mark.parametrize("steps", range(1, len(STEPS) + 1))
def test_nothing_live_is_torn_down_and_no_data_is_lost(
    stage: Stage, until: int, steps: int
) -> None:
    lives = Lives(stage, until)
    for step in STEPS[:steps]:
        step(stage)
    if not lives.copy.exists():
        stage.close()
        return  # this life was shorter
    was, begin = numbers(stage), len(stage.kernel.trace)
    was_stored = {
        name: stage.kernel.read(stage.byre.root.cows / name, 0, 4)
        for name in stage.kernel.list_folder(stage.byre.root.cows)
    }
    link = stage.kernel.read_link(LINK)
    put_back(stage, lives.copy)
    stage.settle()
    stage.settle()  # where an old intent failed, the next look tells that the file is missing
    found = numbers(stage)
    assert {name: found.get(name) for name in was} == was
    for name in was:
        assert stage.kernel.read(f"/dev/mapper/{name}", 4096, 4) == DATA
        assert stage.kernel.read_link(LINK) == link
    for name, text in was_stored.items():
        assert stage.kernel.read(stage.byre.root.cows / name, 0, 4) == text
    assert "remove_file" not in calls_since(stage, begin)
    # Nothing empty under an old name: what went live since has the data that was written.
    for name in set(found) - set(was):
        assert stage.kernel.read(f"/dev/mapper/{name}", 4096, 4) == DATA
    assert sorted(was_stored) == sorted(stage.kernel.list_folder(stage.byre.root.cows))
    stage.check_log()
    stage.check_quiet()
    told = {o.identity for o in survey(stage.byre.log, stage.kernel, stage.byre.root)}
    record = stage.record()
    for uuid, _ in was.values():
        ours = record.state in LIVE and uuid.endswith(f"-{record.generation}")
        assert ours or uuid in told or record.fault is not None, "seen as ours, or told of"
    stage.close()


def test_the_steps_are_as_many_as_the_matrix_has(stage: Stage) -> None:
    lives = Lives(stage, APPENDS)
    for step in STEPS:
        step(stage)
    assert lives.copy.exists()
    assert lives._count == APPENDS  # noqa: SLF001 - the matrix would have holes
    stage.close()


# --- what is held, and how it goes on ------------------------------------------------------------


def test_a_disk_that_was_paused_then_and_is_live_now_stays_live(stage: Stage) -> None:
    live(stage)
    pause(stage)
    copy = copied(stage)
    resume(stage)
    was = numbers(stage)
    done = put_back(stage, copy)
    assert done.held == ("sb-1",)
    stage.settle()
    record = stage.record()
    assert (record.state, record.desired, numbers(stage)) == (State.RESTORED, Desired.PAUSED, was)
    assert is_held(stage)
    assert stage.types()[-2:] == ["disk.held", "drift.detected find"]
    refused = failed_for_good(record)
    assert refused is not None
    assert (refused.exit_code, "held back" in refused.message) == (4, True)
    # A person's word lifts it: the same wish, said again, is done.
    stage.command(Trigger.PAUSE)
    assert (stage.record().state, numbers(stage), is_held(stage)) == (State.PAUSED, {}, False)
    stage.check()
    stage.close()


@pytest.mark.parametrize("word", ["declared", "retry", "restore"])
def test_each_word_of_a_person_lifts_it(stage: Stage, word: str) -> None:
    live(stage)
    pause(stage)
    copy = copied(stage)
    resume(stage)
    put_back(stage, copy)
    stage.settle()
    if word == "declared":
        stage.declare(state=Desired.PAUSED, link=LINK)
    elif word == "retry":
        stage.byre.retry(["sb-1"])
    else:
        stage.byre.command(["sb-1"], Trigger.RESTORE)
    stage.settle()
    expected = State.RESTORED if word == "restore" else State.PAUSED
    assert (stage.record().state, is_held(stage)) == (expected, False)
    stage.check()
    stage.close()


def test_a_pause_that_was_begun_then_is_not_finished_now(stage: Stage) -> None:
    live(stage)
    lives = Lives(stage, 2)  # the wish, and the intent
    pause(stage)
    resume(stage)
    was = numbers(stage)
    with EventLog(lives.copy, read_only=True) as log:
        record = log.record("sb-1")
        assert record is not None
        assert record.in_flight is not None
        assert heldback.is_dangerous(record)
    put_back(stage, lives.copy)
    stage.settle()
    assert numbers(stage) == was
    stage.command(Trigger.RESTORE)
    assert (numbers(stage), is_there(stage.record())) == (was, True)
    stage.check()
    stage.close()


def test_a_disk_that_was_removed_since_is_a_fault_and_no_new_file(stage: Stage) -> None:
    live(stage)
    copy = copied(stage)
    remove(stage)
    put_back(stage, copy)
    stage.settle()
    record = stage.record()
    assert record.fault is not None
    assert (record.fault.kind, numbers(stage)) == ("cow-missing", {})
    assert stage.kernel.list_folder(stage.byre.root.cows) == ()
    remove(stage)
    stage.check()
    stage.close()


def test_a_disk_that_was_only_declared_is_not_made_for_an_old_wish(stage: Stage) -> None:
    stage.declare(link=LINK)
    copy = copied(stage)
    stage.settle()
    remove(stage)
    put_back(stage, copy)
    stage.settle()
    assert (stage.record().state, numbers(stage), is_held(stage)) == (State.ABSENT, {}, True)
    stage.declare(link=LINK)
    stage.settle()
    assert stage.record().state is State.SNAPSHOTTED
    stage.check()
    stage.close()


def test_a_disk_that_was_wanted_again_then_is_not_made_anew_for_that(stage: Stage) -> None:
    live(stage)
    commit, copy = stage.byre.log.commit, stage.root.parent / "backup.db"

    def meddling(events: Sequence[NewEvent]) -> Request:
        settled = commit(events)
        stored = settled.stored
        if stored[-1].data.get("trigger") == "remove" and not copy.exists():
            if stored[-1].type == "transition.started":
                stage.declare(link=LINK)
            else:
                back_up(stage.byre.root.log, copy)
        return settled

    stage.byre.log.commit = meddling  # type: ignore[method-assign]
    remove(stage)
    assert (stage.record().generation, stage.record().state) == (2, State.SNAPSHOTTED)
    stage.command(Trigger.REMOVE)
    put_back(stage, copy)
    stage.settle()
    assert (stage.record().generation, stage.record().state) == (1, State.REMOVED)
    assert (numbers(stage), is_held(stage)) == ({}, True)
    stage.declare(link=LINK)
    stage.settle()
    assert (stage.record().generation, stage.record().state) == (2, State.SNAPSHOTTED)
    stage.check()
    stage.close()


def test_what_is_below_live_is_not_tidied_up_for_an_old_wish(stage: Stage) -> None:
    live(stage)
    pause(stage)
    copy = copied(stage)
    text = f"/dev/mapper/{stage.record().device_name}"
    for folder in (LINK.parent.parent, LINK.parent):
        stage.kernel.make_folder(folder)
    stage.kernel.put_link(LINK, text, replaces=None)
    put_back(stage, copy)
    stage.settle()
    assert stage.kernel.read_link(LINK).target == text
    stage.byre.retry(["sb-1"])
    stage.settle()
    assert stage.kernel.read_link(LINK).target == ""
    stage.check()
    stage.close()


def test_a_disk_that_the_backup_does_not_know_is_an_orphan_and_can_be_adopted(
    stage: Stage,
) -> None:
    stage.live("sb-0")
    copy = copied(stage)
    live(stage)
    was = numbers(stage)
    put_back(stage, copy)
    stage.settle()
    assert numbers(stage) == was
    found = survey(stage.byre.log, stage.kernel, stage.byre.root)
    assert "byre-sb-1" in {orphan.name for orphan in found}
    assert not is_held(stage, "sb-0")
    stage.close()


@pytest.mark.parametrize("a_wish_came_first", [False, True])
def test_a_backup_that_was_copied_into_place_by_hand_is_told_of_all_the_same(
    stage: Stage, *, a_wish_came_first: bool
) -> None:
    stage.live("sb-0")
    live(stage)
    pause(stage)
    copy = copied(stage)
    resume(stage)
    was = numbers(stage)
    drop_the_log(stage)
    shutil.copy(copy, stage.byre.root.log)
    if a_wish_came_first:
        with Byre(stage.root, kernel=stage.kernel) as byre:
            byre.command(["sb-0"], Trigger.PAUSE)
    stage.restart()
    stage.settle()
    assert {name: number for name, number in numbers(stage).items() if "sb-1" in name} == {
        name: number for name, number in was.items() if "sb-1" in name
    }
    assert stage.record("sb-0").state is (State.PAUSED if a_wish_came_first else State.SNAPSHOTTED)
    assert is_held(stage)
    [event] = history.ask(stage.byre.log, history.Question(type="log"))
    assert (event.data["held"], event.data["backup"], event.actor) == (1, "", "reconciler")
    stage.restart()
    stage.settle()
    assert len(history.ask(stage.byre.log, history.Question(type="log"))) == 1, "told once"
    history.prove(stage.byre.log)
    stage.close()


def test_the_log_tells_what_was_restored(stage: Stage) -> None:
    live(stage)
    copy = copied(stage)
    pause(stage)
    lost = Head.of(stage.byre.root.log).read()
    assert lost is not None
    done = put_back(stage, copy)
    [event] = history.ask(stage.byre.log, history.Question(type="log"))
    assert (event.type, event.reason, event.actor) == (
        "log.restored",
        "a test",
        this_process().user,
    )
    assert (event.data["from_seq"], event.data["from_hash"]) == (done.seq, event.prev_hash)
    assert (event.data["lost_seq"], event.data["lost_hash"]) == (lost.seq, lost.hash)
    kept = Path(event.data["kept"])
    with EventLog(kept / "byre.db", read_only=True) as before:
        assert history.verify(before).hash == lost.hash
    history.prove(stage.byre.log)
    stage.close()

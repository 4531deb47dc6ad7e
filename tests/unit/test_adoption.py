"""Adopting: what the log does not know becomes a disk, as it is or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.adoption import Word
from reconciler.orphans import found_event, newly_found, survey
from reconciler.requester import this_process
from reconciler.resolve import Resolver
from statemachine.errors import IdentityMismatch, RefusedError, SpecError, UsageError
from statemachine.machine import Desired, State, Trigger
from statemachine.record import Record
from tests.unit.builders import BASE, MIB, Stage
from tests.unit.strays import (
    STRANGER,
    UUID,
    add_device,
    add_file,
    add_loop,
    add_store,
    drop_the_log,
)


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def names(stage: Stage) -> list[str]:
    found = survey(stage.byre.log, stage.kernel, stage.byre.root)
    return [orphan.name for orphan in found]


def adopt(stage: Stage, name: str, *, as_name: str = "", base: Path | str = "") -> Record:
    """Adopt, and let the reconciler go on with it."""
    disk = (
        Resolver(stage.byre, reason="a test").adopt(name, Word(name=as_name, base=str(base))).disk
    )
    stage.settle()
    return stage.record(disk)


def lose_the_log(stage: Stage) -> None:
    """Put an empty log in the place of the one that knew the disks."""
    drop_the_log(stage)
    stage.restart()


def test_a_live_disk_of_a_lost_log_is_taken_in_as_it_is(stage: Stage) -> None:
    before = stage.live()
    stage.kernel.write(before.device, 4096, b"kept")
    lose_the_log(stage)
    stage.settle()
    calls = len(stage.kernel.trace)
    record = adopt(stage, "byre-sb-1")
    same = ("id", "generation", "device_name", "cow_path", "device", "base", "driver")
    assert [getattr(before, key) for key in same] == [getattr(record, key) for key in same]
    assert (record.state, record.desired) == (State.RESTORED, Desired.LIVE)
    assert stage.kernel.read(record.device, 4096, 4) == b"kept"
    done = {call.name for call in stage.kernel.trace[calls:]}
    assert set() == done & {"dm_create", "dm_remove", "dm_suspend", "loop_detach", "remove_file"}
    found = ["disk.declared", "drift.detected find", "drift.detected find"]
    assert found == stage.types()[:3]
    assert (stage.events()[0].generation, stage.events()[0].actor) == (1, this_process().user)
    assert names(stage) == []
    stage.check_log()
    stage.check_quiet()


def test_what_was_adopted_lives_on_and_leaves_nothing(stage: Stage) -> None:
    stage.live()
    lose_the_log(stage)
    adopt(stage, "byre-sb-1")
    stage.command(Trigger.PAUSE)
    stage.command(Trigger.RESTORE)
    stage.check()
    stage.command(Trigger.REMOVE)
    stage.check()
    # The base's loop had the marker of the lost log: it went with the last device on it.
    assert stage.kernel.loops() == ()
    assert stage.live().generation == 2


def test_all_that_a_disk_is_made_of_is_resolved_with_it(stage: Stage) -> None:
    record = stage.live()
    lose_the_log(stage)
    log = stage.byre.log
    log.append(
        [
            found_event(orphan)
            for orphan in newly_found(log, survey(log, stage.kernel, stage.byre.root))
        ]
    )
    Resolver(stage.byre, reason="a test").adopt(Path(record.cow_path).name)
    told = log.select("WHERE type = 'orphan.resolved' ORDER BY seq")
    assert {"dm", "loop", "file"} == {event.data["kind"] for event in told}
    assert {"adopted"} == {event.data["resolution"] for event in told}
    assert all(event.data["by"]["user"] == this_process().user for event in told)
    assert {"a test"} == {event.reason for event in told}
    assert stage.record().desired is Desired.LIVE


def test_a_file_alone_becomes_a_paused_disk(stage: Stage) -> None:
    before = stage.live()
    stage.kernel.write(before.device, 4096, b"kept")
    stage.command(Trigger.PAUSE)
    lose_the_log(stage)
    record = adopt(stage, Path(before.cow_path).name, as_name="again", base=BASE)
    assert (State.PAUSED, before.id, 1) == (record.state, record.id, record.generation)
    assert names(stage) == []
    stage.check()
    live = stage.command(Trigger.RESTORE, "again")
    assert stage.kernel.read(live.device, 4096, 4) == b"kept"
    assert live.device == "/dev/mapper/byre-again"


def test_a_later_generation_of_a_removed_disk_is_taken_in_under_its_name_only(
    stage: Stage,
) -> None:
    stage.live()
    record = stage.command(Trigger.REMOVE)
    cow = add_store(stage, f"{record.id}-5.cow")
    with pytest.raises(RefusedError, match="can only be adopted as that"):
        adopt(stage, cow.name, as_name="other", base=BASE)
    adopted = adopt(stage, cow.name, base=BASE)
    assert (adopted.name, adopted.generation, adopted.state) == ("sb-1", 5, State.PAUSED)
    stage.command(Trigger.REMOVE)
    assert stage.live().generation == 6
    stage.check()


def test_another_generation_of_a_disk_that_exists_is_refused(stage: Stage) -> None:
    record = stage.live()
    cow = add_store(stage, f"{record.id}-7.cow")
    with pytest.raises(RefusedError, match="the log has sb-1") as caught:
        adopt(stage, cow.name, base=BASE)
    assert "byre remove sb-1" in caught.value.hint
    stage.command(Trigger.REMOVE)
    cow = add_store(stage, f"{record.id}-1.cow")
    with pytest.raises(RefusedError, match="removed, generation 1") as caught:
        adopt(stage, cow.name, base=BASE)
    assert "copy its data out" in caught.value.hint


def test_a_name_that_another_disk_has_is_refused_and_another_can_be_given(stage: Stage) -> None:
    before = stage.live()
    lose_the_log(stage)
    stage.declare("sb-1")
    with pytest.raises(RefusedError, match="there is another disk named sb-1") as caught:
        adopt(stage, "byre-sb-1")
    assert "--as" in caught.value.hint
    record = adopt(stage, "byre-sb-1", as_name="sb-1-old")
    assert (record.id, record.device_name) == (before.id, "byre-sb-1")
    assert record.state is State.RESTORED


def test_what_is_not_told_must_be_said(stage: Stage) -> None:
    cow = add_store(stage, f"{STRANGER}.cow")
    with pytest.raises(UsageError, match="nothing tells the disk's name"):
        adopt(stage, cow.name, base=BASE)
    with pytest.raises(UsageError, match="nothing tells the disk's base"):
        adopt(stage, cow.name, as_name="sb-2")
    with pytest.raises(SpecError, match="Not A Name"):
        adopt(stage, cow.name, as_name="Not A Name", base=BASE)
    with pytest.raises(SpecError, match="/srv/none"):
        adopt(stage, cow.name, as_name="sb-2", base="/srv/none")
    assert stage.byre.log.records() == []


def test_a_device_on_another_base_than_was_said_is_refused(stage: Stage) -> None:
    stage.live()
    lose_the_log(stage)
    other = stage.kernel.make_file("/srv/other.ext4", MIB, b"other")
    with pytest.raises(IdentityMismatch, match="stands on /srv/base"):
        adopt(stage, "byre-sb-1", base=other)
    assert stage.byre.log.records() == []


def test_a_device_whose_base_was_deleted_wants_its_place_and_takes_no_other(stage: Stage) -> None:
    stage.live()
    lose_the_log(stage)
    base = stage.kernel.identify(BASE)
    assert base is not None
    stage.kernel.remove_file(BASE, base)
    with pytest.raises(UsageError, match="its base has no path any more"):
        adopt(stage, "byre-sb-1")
    copy = stage.kernel.make_file("/srv/copy.ext4", MIB, b"base")
    with pytest.raises(IdentityMismatch, match="not on that base"):
        adopt(stage, "byre-sb-1", base=copy)


def test_a_device_whose_file_is_gone_is_refused(stage: Stage) -> None:
    record = stage.live()
    lose_the_log(stage)
    file = stage.kernel.identify(Path(record.cow_path))
    assert file is not None
    stage.kernel.remove_file(Path(record.cow_path), file)
    with pytest.raises(IdentityMismatch, match="its data is in"):
        adopt(stage, "byre-sb-1")
    assert stage.kernel.dm("byre-sb-1") is not None


def test_what_holds_no_data_of_a_disk_is_not_adopted(stage: Stage) -> None:
    stage.kernel.dm_create("byre-half", UUID)
    empty = add_file(stage, f"{'cd' * 16}-1.cow")
    image = add_file(stage, f"{'ef' * 16}-1.img")
    loop = add_loop(stage, empty, f"BYRE-{'cd' * 16}-1")
    for name, why in (
        ("byre-half", "it has no table"),
        (empty.name, "is empty"),
        (image.name, "does not know"),
        (f"loop{loop.number}", "does not know"),
    ):
        with pytest.raises(RefusedError, match=why) as caught:
            adopt(stage, name, as_name="sb-2", base=BASE)
        assert caught.value.hint, name
    assert stage.byre.log.records() == []


def test_a_device_of_another_root_is_not_adopted(stage: Stage) -> None:
    other = stage.kernel.make_file(f"/var/lib/other/cow/{STRANGER}.cow", 2 * MIB)
    add_device(stage, "byre-theirs", other)
    with pytest.raises(RefusedError, match="another byre root"):
        adopt(stage, "byre-theirs")

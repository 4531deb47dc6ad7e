"""CoW files that are made smaller while a disk is paused: on wish, at each pause, after crashes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.kernel.sim import SimCrash
from reconciler.specs import Sourced
from statemachine.errors import RefusedError, SpecError
from statemachine.fileidentity import FileIdentity
from statemachine.machine import Desired, Trigger
from statemachine.specreader import parse
from tests.unit.builders import BASE, LINK, MIB, Stage

DEVICE = "/dev/mapper/byre-sb-1"
CHUNK = 4096


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def declare(stage: Stage, state: Desired = Desired.LIVE, *, sparsify: bool = False) -> None:
    table = {"name": "sb-1", "base": str(BASE), "state": state.value, "link": str(LINK)}
    [spec] = parse({"disk": [table | {"sparsify": sparsify}]}, source="x", folder=Path("/"))
    stage.byre.apply([Sourced("x", spec)])


def written(stage: Stage, *, sparsify: bool = False) -> bytes:
    """Bring a disk live, write data and, over 19 chunks, what the base has; returns its content."""
    declare(stage, sparsify=sparsify)
    stage.settle()
    base = stage.kernel.read(BASE, 0, MIB)
    for number in range(40):
        stage.kernel.write(DEVICE, number * CHUNK, bytes([number + 1]) * CHUNK)
    for number in range(10):
        stage.kernel.write(DEVICE, number * CHUNK, base[number * CHUNK : (number + 1) * CHUNK])
    for number in range(20, 30):
        stage.kernel.write(DEVICE, number * CHUNK, bytes(CHUNK))
    stage.kernel.write(DEVICE, 4, b"data")
    stage.kernel.flush(DEVICE)
    return stage.kernel.read(DEVICE, 0, MIB)


def cow(stage: Stage) -> Path:
    return Path(stage.record().cow_path)


def identity(stage: Stage) -> FileIdentity:
    found = stage.kernel.identify(cow(stage))
    assert found is not None
    return found


def restored(stage: Stage) -> bytes:
    stage.command(Trigger.RESTORE)
    return stage.kernel.read(DEVICE, 0, MIB)


def test_the_disk_is_the_same_and_its_file_is_smaller(stage: Stage) -> None:
    content = written(stage)
    stage.command(Trigger.PAUSE)
    before, room = identity(stage), stage.kernel.allocated(cow(stage))
    assert [each.changed for each in stage.byre.sparsify(["sb-1"])] == [True]
    assert [each.changed for each in stage.byre.sparsify(["sb-1"])] == [False]
    [waited] = stage.byre.wait(["sb-1"], timeout_s=60)
    assert waited.is_there
    assert stage.kernel.allocated(cow(stage)).count <= room.count - 19 * CHUNK
    after = identity(stage)
    assert (after.inode != before.inode, after.size) == (True, before.size)
    stage.settle()
    stage.check()
    stage.check_quiet()
    assert restored(stage) == content
    device = stage.kernel.dm("byre-sb-1")
    assert device is not None
    assert device.status is not None
    assert device.status.used.to_bytes().count == (2 + 21) * CHUNK
    stage.check()


def test_a_spec_may_have_it_done_at_each_pause(stage: Stage) -> None:
    content = written(stage, sparsify=True)
    before = identity(stage)
    declare(stage, Desired.PAUSED, sparsify=True)
    stage.settle()
    assert identity(stage).inode != before.inode
    stage.check()
    stage.check_quiet()
    assert restored(stage) == content


def test_what_cannot_be_smaller_stays_as_it_is(stage: Stage) -> None:
    declare(stage)
    stage.settle()
    stage.kernel.write(DEVICE, 0, b"data")
    stage.command(Trigger.PAUSE)
    before = identity(stage)
    stage.byre.sparsify(["sb-1"])
    stage.settle()
    assert identity(stage) == before
    assert not stage.record().sparsify_due
    stage.check()
    stage.check_quiet()


def test_a_disk_that_is_wanted_live_at_once_keeps_its_file_and_no_other(stage: Stage) -> None:
    content = written(stage)
    stage.command(Trigger.PAUSE)
    before = identity(stage)
    stage.byre.sparsify(["sb-1"])
    stage.kernel.faults.fail("swap_file", errno.EIO, times=1)
    stage.settle()
    assert stage.record().cow_next is not None
    assert restored(stage) == content
    assert identity(stage).inode == before.inode
    assert stage.record().cow_next is None
    stage.check()


def test_a_new_store_of_before_a_write_is_never_used(stage: Stage) -> None:
    written(stage)
    stage.command(Trigger.PAUSE)
    stage.byre.sparsify(["sb-1"])
    stage.kernel.faults.fail("swap_file", errno.EIO, times=1)
    stage.settle()
    stage.clock.advance_s(1.0)
    stage.kernel.write(cow(stage), 3 * CHUNK, b"somebody wrote here")
    before = identity(stage)
    stage.byre.retry(["sb-1"])
    stage.settle()
    assert identity(stage) == before
    stage.check()


def test_only_a_paused_disk_with_a_store_is_made_smaller(stage: Stage) -> None:
    written(stage)
    with pytest.raises(RefusedError, match="it is snapshotted, live is desired"):
        stage.byre.sparsify(["sb-1"])
    stage.kernel.host.dm_errno = errno.ENODEV
    stage.live("sb-2")
    with pytest.raises(RefusedError, match="it is a clone"):
        stage.byre.sparsify(["sb-2"])
    table = {"name": "sb-3", "base": "/b", "driver": "clone", "discard": True, "sparsify": True}
    with pytest.raises(SpecError) as raised:
        parse({"disk": [table]}, source="x", folder=Path("/"))
    assert len(raised.value.faults) == 2


@pytest.mark.parametrize("last", [None, Trigger.RESTORE, Trigger.REMOVE])
def test_a_crash_at_any_point_leaves_the_disk_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, last: Trigger | None
) -> None:
    points, number = [0], 0
    while number < len(points):
        stage = Stage(tmp_path_factory.mktemp("root"))
        content = written(stage)
        stage.command(Trigger.PAUSE)
        stage.byre.sparsify(["sb-1"])
        faults = stage.kernel.faults
        began = faults.calls
        if number:
            faults.crash_at_call(began + points[number], when="after")
            with pytest.raises(SimCrash):
                stage.settle()
            faults.clear()
            stage.restart()
        else:
            stage.settle()
            calls = [call for call in stage.kernel.trace if call.number > began]
            points += [call.number - began for call in calls if call.is_change]
        if last is not None:
            stage.byre.command(["sb-1"], last)
        stage.settle()
        stage.check()
        stage.check_quiet()
        if last is None:
            stage.command(Trigger.RESTORE)
        if last is not Trigger.REMOVE:
            assert stage.kernel.read(DEVICE, 0, MIB) == content
        stage.close()
        number += 1
    assert len(points) > 2

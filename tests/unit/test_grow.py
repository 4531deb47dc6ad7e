"""Disks that are larger than their base, from the start or later: on both drivers, live and not."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler import orphans, survey
from reconciler.kernel.sim import SimCrash
from reconciler.specs import Sourced
from statemachine.errors import RefusedError, SpecError
from statemachine.machine import LIVE, Desired, State, Trigger
from statemachine.names import origin_name, origin_uuid
from statemachine.record import Record
from statemachine.specreader import parse
from statemachine.units import Bytes
from tests.unit.builders import BASE, LINK, MIB, Stage

DEVICE = "/dev/mapper/byre-sb-1"
ODD = 2 * MIB + 512
"""No whole number of chunks."""
DATA, PAST = b"past the end of the base", MIB + 8192 + 100


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def declare(stage: Stage, size: int | None, state: Desired = Desired.LIVE) -> None:
    stage.byre.ensure("sb-1", base=BASE, state=state, link=LINK, size=size)


def live(stage: Stage, size: int | None) -> Record:
    declare(stage, size)
    stage.settle()
    return stage.record()


# --- dm-snapshot ----------------------------------------------------------------------------------


def test_a_disk_may_be_larger_than_its_base_from_the_start(stage: Stage) -> None:
    live(stage, ODD)
    origin = stage.kernel.dm("byre-sb-1:origin")
    assert origin is not None
    assert origin.uuid == origin_uuid(stage.record().id, 1)
    device = stage.kernel.dm("byre-sb-1")
    assert device is not None
    assert device.table is not None
    assert (device.table.length.to_bytes(), device.table.origin) == (Bytes(ODD), origin.device)
    assert stage.kernel.read(DEVICE, 0, 4) == b"base"
    assert stage.kernel.read(DEVICE, MIB, ODD - MIB) == bytes(ODD - MIB)
    stage.kernel.write(DEVICE, PAST, DATA)
    stage.command(Trigger.PAUSE)
    assert stage.kernel.dm_names() == ()
    stage.command(Trigger.RESTORE)
    assert stage.kernel.read(DEVICE, PAST, len(DATA)) == DATA
    stage.check()
    stage.check_quiet()
    stage.command(Trigger.REMOVE)
    assert (stage.kernel.dm_names(), stage.kernel.loops()) == ((), ())


@pytest.mark.parametrize("first", [None, MIB + 4096], ids=["as-base", "larger"])
def test_a_live_disk_grows_under_its_user(stage: Stage, first: int | None) -> None:
    live(stage, first)
    stage.kernel.write(DEVICE, 4096, DATA)
    before = stage.kernel.read(DEVICE, 0, MIB)
    number = stage.record().device_number
    with stage.kernel.open(DEVICE):
        [declared] = stage.byre.grow("sb-1", size=Bytes(ODD))
        assert declared.changed
        stage.settle()
        assert stage.record().device_number == number
        assert stage.kernel.read(DEVICE, 0, MIB) == before
        stage.kernel.write(DEVICE, PAST, DATA)
    assert stage.record().state in LIVE
    assert stage.kernel.identify(Path(stage.record().cow_path)).size >= Bytes(ODD)  # type: ignore[union-attr]
    assert [each.changed for each in stage.byre.grow("sb-1", size=Bytes(ODD))] == [False]
    stage.check()
    stage.check_quiet()
    stage.command(Trigger.PAUSE)
    stage.command(Trigger.RESTORE)
    assert stage.kernel.read(DEVICE, PAST, len(DATA)) == DATA


def test_a_paused_disk_is_larger_when_it_comes_back(stage: Stage) -> None:
    live(stage, None)
    stage.kernel.write(DEVICE, 4096, DATA)
    stage.command(Trigger.PAUSE)
    stage.byre.grow("sb-1", size=Bytes(ODD))
    stage.settle()
    stage.command(Trigger.RESTORE)
    assert stage.kernel.read(DEVICE, 4096, len(DATA)) == DATA
    assert stage.kernel.read(DEVICE, ODD - 512, 512) == bytes(512)
    stage.check()


def test_a_grown_disk_is_quiet_to_the_survey_and_its_origin_no_orphan(stage: Stage) -> None:
    record = live(stage, ODD)
    seen = survey.take(stage.kernel, stage.byre.root, stage.settings)
    assert survey.is_quiet(record, seen, stage.kernel)
    assert not survey.has_strangers([record], seen, stage.kernel)
    assert orphans.survey(stage.byre.log, stage.kernel, stage.byre.root) == ()


def test_an_origin_of_somebody_else_is_refused(stage: Stage) -> None:
    stage.kernel.add_foreign_dm(origin_name("byre-sb-1"))
    record = live(stage, ODD)
    assert record.failure is not None
    assert (record.failure.kind, record.failure.exit_code) == ("foreign-device", 4)
    assert stage.kernel.dm(origin_name("byre-sb-1")) is not None


def test_a_device_over_another_origin_is_left_alone(stage: Stage) -> None:
    live(stage, ODD)
    stage.kernel.rename_dm_by_hand("byre-sb-1:origin", "theirs")
    stage.settle()
    fault = stage.record().fault
    assert fault is not None
    assert (fault.kind, fault.exit_code) == ("identity-mismatch", 4)


def test_a_device_that_was_taken_away_leaves_no_origin(stage: Stage) -> None:
    live(stage, ODD)
    stage.kernel.write(DEVICE, PAST, DATA)
    stage.kernel.remove_dm_by_hand("byre-sb-1")
    stage.settle()
    assert stage.kernel.read(DEVICE, PAST, len(DATA)) == DATA
    stage.kernel.remove_dm_by_hand("byre-sb-1")
    declare(stage, ODD, Desired.PAUSED)
    stage.settle()
    assert stage.kernel.dm_names() == ()
    stage.check()


# --- clone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loops", [True, False], ids=["loop", "file"])
@pytest.mark.parametrize("when", ["first", "live", "paused"])
def test_a_clone_grows_as_well(stage: Stage, when: str, *, loops: bool) -> None:
    stage.kernel.host.dm_errno = errno.ENODEV
    stage.kernel.host.loop_errno = 0 if loops else errno.EPERM
    live(stage, ODD if when == "first" else None)
    if when == "paused":
        stage.command(Trigger.PAUSE)
    stage.byre.grow("sb-1", size=Bytes(ODD))
    stage.settle()
    if when == "paused":
        stage.command(Trigger.RESTORE)
    record = stage.record()
    stage.kernel.write(record.device, PAST, DATA)
    assert stage.kernel.read(record.device, 0, 4) == b"base"
    assert stage.kernel.read(record.device, ODD - 512, 512) == bytes(512)
    assert record.cow is not None
    assert record.cow.size == Bytes(ODD)
    stage.check()
    stage.check_quiet()


# --- what is refused ------------------------------------------------------------------------------


def test_a_disk_never_gets_smaller(stage: Stage) -> None:
    live(stage, ODD)
    seq = stage.byre.log.last_seq()
    for smaller in (MIB, ODD - 512):
        with pytest.raises(RefusedError, match="it cannot become"):
            stage.byre.grow("sb-1", size=Bytes(smaller))
        with pytest.raises(RefusedError, match="it cannot become"):
            declare(stage, smaller)
    with pytest.raises(RefusedError, match="it cannot become"):
        declare(stage, None)
    with pytest.raises(SpecError, match=f"at least {MIB}"):
        stage.byre.grow("sb-1", size=Bytes(MIB - 512))
    assert stage.byre.log.last_seq() == seq


def test_a_size_below_the_base_is_a_fault_of_the_spec(stage: Stage) -> None:
    with pytest.raises(SpecError, match=f"'size': found {MIB // 2}; allowed: at least {MIB}"):
        declare(stage, MIB // 2)
    assert stage.byre.log.record("sb-1") is None


@pytest.mark.parametrize("size", [0, 511, 1.5, True, "many", -512, 2**70])
def test_a_size_is_a_multiple_of_a_sector(size: object) -> None:
    table = {"name": "sb-1", "base": "/b", "size": size}
    with pytest.raises(SpecError, match=r"field 'size': found .*; allowed: bytes, or text"):
        parse({"disk": [table]}, source="x", folder=Path("/"))


def test_a_removed_disk_does_not_grow_and_its_next_life_may_be_smaller(stage: Stage) -> None:
    live(stage, ODD)
    stage.command(Trigger.REMOVE)
    with pytest.raises(RefusedError, match="removed"):
        stage.byre.grow("sb-1", size=Bytes(2 * ODD))
    live(stage, None)
    assert stage.record().size == Bytes(MIB)
    stage.check()


def test_a_throwaway_disk_keeps_its_size(stage: Stage) -> None:
    """A new table would begin without the exceptions, which are in the kernel alone."""
    stage.byre.ensure("sb-1", base=BASE, persistent=False, size=ODD)
    stage.settle()
    stage.kernel.write(DEVICE, PAST, DATA)
    with pytest.raises(RefusedError, match="throwaway"):
        stage.byre.grow("sb-1", size=Bytes(2 * ODD))
    with pytest.raises(RefusedError, match="throwaway"):
        stage.byre.ensure("sb-1", base=BASE, persistent=False, size=2 * ODD)
    assert stage.kernel.read(DEVICE, PAST, len(DATA)) == DATA
    stage.check()


def test_a_fork_is_as_large_as_its_source(stage: Stage) -> None:
    live(stage, ODD)
    stage.kernel.write(DEVICE, PAST, DATA)
    stage.kernel.flush(DEVICE)
    stage.command(Trigger.PAUSE)
    stage.byre.fork("sb-1", ["sb-2"])
    stage.settle()
    assert stage.record("sb-2").size == Bytes(ODD)
    stage.byre.command(["sb-2"], Trigger.RESTORE)
    stage.settle()
    assert stage.kernel.read("/dev/mapper/byre-sb-2", PAST, len(DATA)) == DATA
    stage.check()


def test_the_bound_of_a_cow_grows_and_the_file_follows(stage: Stage) -> None:
    table = {"name": "sb-1", "base": str(BASE), "cow_size": MIB, "cow_max": MIB}
    [spec] = parse({"disk": [table]}, source="x", folder=Path("/"))
    stage.byre.apply([Sourced("x", spec)])
    stage.settle()
    stage.byre.grow("sb-1", cow_max=Bytes(2 * MIB))
    stage.settle()
    assert stage.record().wanted.cow_max == Bytes(2 * MIB)
    with pytest.raises(RefusedError, match="it cannot become"):
        stage.byre.grow("sb-1", cow_max=Bytes(MIB))


# --- crashes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [Desired.LIVE, Desired.PAUSED, Desired.REMOVED])
@pytest.mark.parametrize("first", [None, MIB + 4096], ids=["as-base", "larger"])
def test_a_crash_at_any_point_of_growing_is_made_good(
    tmp_path_factory: pytest.TempPathFactory, first: int | None, state: Desired
) -> None:
    points, number = [0], 0
    while number < len(points):
        stage = Stage(tmp_path_factory.mktemp("root"))
        live(stage, first)
        stage.kernel.write(DEVICE, 4096, DATA)
        stage.kernel.flush(DEVICE)
        declare(stage, ODD, state)
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
            points += [
                c.number - began for c in stage.kernel.trace if c.number > began and c.is_change
            ]
        stage.settle()
        stage.check()
        stage.check_quiet()
        if state is not Desired.REMOVED:
            stage.command(Trigger.PAUSE)
            stage.command(Trigger.RESTORE)
            assert stage.kernel.read(DEVICE, 4096, len(DATA)) == DATA
            assert stage.kernel.read(DEVICE, ODD - 512, 512) == bytes(512)
        assert stage.record().state is not State.ABSENT
        stage.close()
        number += 1
    assert len(points) > 1

"""Chunks of another size: a whole life, what may be asked for, and what follows from it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.adoption import Word
from reconciler.drivers.cow_room import cow_size
from reconciler.kernel.sim import SimKernel
from reconciler.resolve import Resolver
from statemachine.errors import RefusedError
from statemachine.machine import State, Trigger
from statemachine.observed import SnapshotHealth, SnapshotStatus, SnapshotTable
from statemachine.spec import DiskSpec
from statemachine.specreader import parse
from statemachine.units import CHUNK_SIZES, Bytes, Sectors
from tests.unit import simdisk
from tests.unit.builders import BASE, MIB, Stage
from tests.unit.strays import drop_the_log

KIB = 1024
SIZES = ["4KiB", "16KiB", "64KiB", "512KiB"]


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def status(stage: Stage) -> SnapshotStatus:
    device = stage.kernel.dm(stage.record().device_name)
    assert device is not None
    assert device.status is not None
    return device.status


def chunk_of_table(stage: Stage) -> int:
    device = stage.kernel.dm(stage.record().device_name)
    assert device is not None
    assert device.table is not None
    return device.table.chunk.to_bytes().count


@settings(max_examples=60)
@given(
    sectors=st.integers(1, 4096),
    chunk=st.sampled_from(CHUNK_SIZES),
    dice=st.randoms(use_true_random=False),
)
def test_a_full_rewrite_never_overflows(sectors: int, chunk: int, dice: random.Random) -> None:
    sim = SimKernel()
    base, size = Sectors(sectors), Bytes(chunk)
    sim.make_file(simdisk.BASE, base.to_bytes(), b"base")
    sim.make_file(simdisk.COW, cow_size(base.to_bytes(), size))
    origin = simdisk.attach(sim, simdisk.BASE, read_only=True)
    cow = simdisk.attach(sim, simdisk.COW)
    number = sim.dm_create("sb-1", simdisk.UUID)
    table = SnapshotTable(
        length=base, origin=origin.device, cow=cow.device, chunk=size.sectors_exact()
    )
    sim.dm_load(simdisk.UUID, table)
    sim.dm_resume(simdisk.UUID)
    offsets = list(range(0, sectors * 512, chunk))
    dice.shuffle(offsets)
    for offset in offsets:
        sim.write(Path(f"/dev/dm-{number.minor}"), offset, b"x" * 512)
    device = sim.dm("sb-1")
    assert device is not None
    assert device.status is not None
    assert device.status.health is SnapshotHealth.VALID


class TestALife:
    @pytest.mark.parametrize("chunk", SIZES)
    def test_it_is_made_kept_and_restored(self, stage: Stage, chunk: str) -> None:
        stage.byre.ensure("sb-1", base=BASE, chunk_size=chunk)
        stage.settle()
        size = Bytes.parse(chunk)
        record = stage.record()
        assert record.cow is not None
        assert record.cow.size == cow_size(Bytes(MIB), size)
        assert chunk_of_table(stage) == size.count
        for offset in range(0, MIB, 4 * KIB):
            stage.kernel.write(record.device, offset, offset.to_bytes(4))
        stage.settle()
        assert status(stage).health is SnapshotHealth.VALID
        stage.command(Trigger.PAUSE)
        stage.command(Trigger.RESTORE)
        assert stage.record().state is State.RESTORED
        for offset in range(0, MIB, 4 * KIB):
            assert stage.kernel.read(stage.record().device, offset, 4) == offset.to_bytes(4)
        stage.check()
        stage.check_quiet()
        stage.command(Trigger.REMOVE)
        stage.check()

    def test_a_small_one_is_grown_in_whole_chunks_before_it_is_full(self, stage: Stage) -> None:
        stage.kernel.make_file(Path("/srv/big"), Bytes(16 * MIB), b"base")
        stage.byre.ensure("sb-1", base="/srv/big", chunk_size="64KiB", cow_size="1MiB")
        stage.settle()
        for offset in range(0, 16 * MIB, 64 * KIB):
            stage.kernel.write(stage.record().device, offset, b"y")
            stage.settle()
        assert status(stage).health is SnapshotHealth.VALID
        sizes = [each.data["to_bytes"] for each in stage.events() if each.type == "cow.grown"]
        assert sizes
        assert [0] * len(sizes) == [size % (64 * KIB) for size in sizes]
        assert sizes[-1] <= cow_size(Bytes(16 * MIB), Bytes(64 * KIB)).count

    def test_a_store_with_other_chunks_than_declared_is_not_used(self, stage: Stage) -> None:
        stage.live()
        stage.command(Trigger.PAUSE)
        path = Path(stage.record().cow_path)
        assert stage.kernel.read(path, 12, 4) == (8).to_bytes(4, "little")
        stage.kernel.write(path, 12, (16).to_bytes(4, "little"))
        stage.byre.command(["sb-1"], Trigger.RESTORE)
        stage.settle()
        fault = stage.record().fault
        assert fault is not None
        assert fault.kind == "cow-foreign"


class TestAnotherSize:
    def test_it_is_refused_once_there_is_a_store(self, stage: Stage) -> None:
        stage.byre.ensure("sb-1", base=BASE, chunk_size="16KiB")
        stage.settle()
        seq = stage.byre.log.last_seq()
        with pytest.raises(RefusedError, match=r"chunk_size is 16.0 KiB; it cannot become 64.0"):
            stage.byre.ensure("sb-1", base=BASE, chunk_size="64KiB")
        assert stage.byre.log.last_seq() == seq

    def test_it_is_taken_before_there_is_one(self, stage: Stage) -> None:
        stage.byre.ensure("sb-1", base=BASE)
        stage.byre.ensure("sb-1", base=BASE, chunk_size="16KiB")
        stage.settle()
        assert chunk_of_table(stage) == 16 * KIB

    def test_the_next_generation_may_have_another(self, stage: Stage) -> None:
        stage.live()
        stage.command(Trigger.REMOVE)
        stage.byre.ensure("sb-1", base=BASE, chunk_size="32KiB")
        stage.settle()
        assert (stage.record().generation, chunk_of_table(stage)) == (2, 32 * KIB)


def test_what_is_adopted_keeps_its_chunks(stage: Stage) -> None:
    stage.byre.ensure("sb-1", base=BASE, chunk_size="16KiB")
    stage.settle()
    stage.kernel.write(stage.record().device, 40 * KIB, b"kept")
    drop_the_log(stage)
    stage.restart()
    stage.settle()
    Resolver(stage.byre, reason="a test").adopt("byre-sb-1", Word())
    stage.settle()
    assert stage.record().wanted.chunk_size == Bytes(16 * KIB)
    stage.command(Trigger.PAUSE)
    drop_the_log(stage)
    stage.restart()
    stage.settle()
    [file] = stage.kernel.list_folder(stage.byre.root.cows)
    Resolver(stage.byre, reason="a test").adopt(file, Word(name="sb-2", base=str(BASE)))
    stage.byre.command(["sb-2"], Trigger.RESTORE)
    stage.settle()
    assert stage.record("sb-2").wanted.chunk_size == Bytes(16 * KIB)
    assert stage.kernel.read(stage.record("sb-2").device, 40 * KIB, 4) == b"kept"


def test_a_spec_without_the_fields_is_as_it_was_in_older_logs(stage: Stage) -> None:
    stage.byre.ensure("sb-1", base=BASE)
    [declared] = stage.events()
    assert not {"chunk_size", "direct_io"} & set(declared.data["spec"])
    assert DiskSpec.from_data(declared.data["spec"]).chunk_size == Bytes(4 * KIB)


@pytest.mark.parametrize("chunk", CHUNK_SIZES)
def test_a_spec_survives_the_log(chunk: int) -> None:
    table = {"name": "sb-1", "base": "/b", "chunk_size": chunk, "direct_io": True}
    [spec] = parse({"disk": [table]}, source="a test", folder=Path("/"))
    assert DiskSpec.from_data(spec.to_data()) == spec
    assert (spec.chunk_size, spec.direct_io) == (Bytes(chunk), True)

"""Growing: a file, the loop on it, and the live snapshot on that (kernel fact 2). And syncing."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from statemachine.errors import ActionError, IdentityMismatch
from statemachine.fileidentity import FileIdentity
from statemachine.observed import SnapshotHealth
from statemachine.units import Bytes, Sectors
from tests.contract.disk import CHUNK, MIB, Lab


def identity(lab: Lab, path: Path) -> FileIdentity:
    found = lab.kernel.identify(path)
    assert found is not None
    return found


class TestFile:
    def test_the_new_part_is_a_hole(self, lab: Lab) -> None:
        path = lab.file("file", 2 * CHUNK, b"data")
        room = lab.kernel.allocated(path)
        assert lab.kernel.grow_file(path, identity(lab, path), Bytes(MIB)) is True
        assert identity(lab, path).size == Bytes(MIB)
        assert lab.kernel.allocated(path) == room
        assert lab.world.read(path, 0, 5) == b"data\0"

    @pytest.mark.parametrize("size", [CHUNK, 2 * CHUNK])
    def test_it_never_gets_smaller(self, lab: Lab, size: int) -> None:
        path = lab.file("file", 2 * CHUNK)
        assert lab.kernel.grow_file(path, identity(lab, path), Bytes(size)) is False
        assert identity(lab, path).size == Bytes(2 * CHUNK)

    def test_another_file_is_left_alone(self, lab: Lab) -> None:
        path = lab.file("file", CHUNK)
        other = attrs.evolve(identity(lab, path), inode=identity(lab, path).inode + 1)
        with pytest.raises(IdentityMismatch):
            lab.kernel.grow_file(path, other, Bytes(MIB))
        assert identity(lab, path).size == Bytes(CHUNK)

    def test_a_missing_one_stays_missing(self, lab: Lab) -> None:
        path = lab.file("file", CHUNK)
        was = identity(lab, path)
        lab.delete(path)
        with pytest.raises(ActionError):
            lab.kernel.grow_file(path, was, Bytes(MIB))
        assert lab.kernel.identify(path) is None


class TestSync:
    def test_a_file_that_a_loop_wrote_to_is_synced(self, lab: Lab) -> None:
        path = lab.file("file", 2 * CHUNK)
        lab.world.write(Path(lab.attach(path).path), 0, b"data")
        lab.kernel.sync_file(path, identity(lab, path))
        assert lab.world.read(path, 0, 4) == b"data"

    def test_another_file_is_refused(self, lab: Lab) -> None:
        path = lab.file("file", CHUNK)
        other = attrs.evolve(identity(lab, path), inode=identity(lab, path).inode + 1)
        with pytest.raises(IdentityMismatch):
            lab.kernel.sync_file(path, other)

    def test_a_missing_one_is_told(self, lab: Lab) -> None:
        path = lab.file("file", CHUNK)
        was = identity(lab, path)
        lab.delete(path)
        with pytest.raises(ActionError):
            lab.kernel.sync_file(path, was)


class TestLoop:
    def test_it_takes_the_size_of_its_file_when_told(self, lab: Lab) -> None:
        path = lab.file("file", 2 * CHUNK)
        loop = lab.attach(path)
        lab.kernel.grow_file(path, identity(lab, path), Bytes(4 * CHUNK))
        before = lab.kernel.loop(loop.number)
        assert before is not None
        assert before.size == Sectors(16)
        assert lab.kernel.loop_grow(loop) is True
        after = lab.kernel.loop(loop.number)
        assert after is not None
        assert after.size == Sectors(32)
        assert lab.kernel.loop_grow(loop) is False

    def test_a_number_that_is_on_another_file_is_refused(self, lab: Lab) -> None:
        loop = lab.attach(lab.file("file", CHUNK))
        with pytest.raises(IdentityMismatch):
            lab.kernel.loop_grow(attrs.evolve(loop, backing_inode=loop.backing_inode + 1))


class TestSnapshot:
    def test_a_live_one_takes_more_than_it_could_before(self, lab: Lab) -> None:
        disk = lab.disk(origin=2 * MIB, cow=20 * CHUNK).up()
        for chunk in range(10):
            lab.world.write(disk.node, chunk * CHUNK, b"a" * CHUNK)
        lab.kernel.grow_file(disk.cow, identity(lab, disk.cow), Bytes(MIB))
        assert lab.kernel.loop_grow(disk.cow_loop) is True
        assert disk.status.total == Sectors(2048)
        for chunk in range(100):
            lab.world.write(disk.node, chunk * CHUNK, b"b" * CHUNK)
        assert disk.status.health is SnapshotHealth.VALID
        assert lab.world.read(disk.node, 99 * CHUNK, 1) == b"b"

    def test_a_suspended_one_grows_as_well(self, lab: Lab) -> None:
        disk = lab.disk(cow=20 * CHUNK).up()
        lab.kernel.dm_suspend(disk.uuid)
        lab.kernel.grow_file(disk.cow, identity(lab, disk.cow), Bytes(MIB))
        assert lab.kernel.loop_grow(disk.cow_loop) is True
        assert disk.status.total == Sectors(2048)
        assert disk.observed.suspended

"""The exception store: what the status says after how many writes, and how it ends."""

from __future__ import annotations

import errno
import struct

import pytest

from statemachine.observed import SnapshotHealth, SnapshotStatus
from statemachine.units import Bytes, Sectors
from tests.contract.disk import CHUNK, MIB, Disk, Lab

MAGIC = 0x70416E53
INVALID = SnapshotStatus(health=SnapshotHealth.INVALID)


def fill(lab: Lab, disk: Disk, *, upto: int, start: int = 0) -> None:
    """Write whole chunks, one by one."""
    for chunk in range(start, upto):
        lab.world.write(disk.node, chunk * CHUNK, b"y" * CHUNK)


def fails(lab: Lab, disk: Disk, chunk: int) -> None:
    """Expect that a chunk cannot be written."""
    with pytest.raises(OSError, match=r".") as raised:
        lab.world.write(disk.node, chunk * CHUNK, b"y" * CHUNK)
    assert raised.value.errno == errno.EIO


def lost_for_ever(lab: Lab, disk: Disk) -> None:
    """Expect that a store is invalid now, and in its next life, and says so in its header."""
    assert disk.status == INVALID
    assert lab.kernel.cow_header(disk.cow) == "invalid"
    with pytest.raises(OSError, match=r"."):
        lab.world.read(disk.node, 0, CHUNK)
    disk.remove()
    disk.up()
    assert disk.status == INVALID
    assert disk.observed.table == disk.table


class TestUsage:
    def test_an_empty_store_has_a_header_and_an_area(self, lab: Lab) -> None:
        disk = lab.disk(cow=2 * MIB).up()
        assert disk.status == SnapshotStatus(
            health=SnapshotHealth.VALID,
            used=Sectors(16),
            total=Sectors(4096),
            metadata=Sectors(16),
        )

    def test_an_area_serves_256_chunks(self, lab: Lab) -> None:
        disk = lab.disk(origin=4 * MIB, cow=8 * MIB).up()
        written = 0
        seen = {}
        for count in (1, 2, 255, 256, 257, 511, 512, 513):
            fill(lab, disk, start=written, upto=count)
            written = count
            seen[count] = disk.chunks
        assert seen == {
            1: (3, 2),
            2: (4, 2),
            255: (257, 2),
            256: (259, 3),
            257: (260, 3),
            511: (514, 3),
            512: (516, 4),
            513: (517, 4),
        }
        assert lab.kernel.allocated(disk.cow) == Bytes(517 * CHUNK)

    def test_a_chunk_counts_once(self, lab: Lab) -> None:
        disk = lab.disk().up()
        for _ in range(3):
            fill(lab, disk, upto=2)
        assert disk.chunks == (4, 2)

    def test_a_part_of_a_chunk_takes_a_whole_one(self, lab: Lab) -> None:
        disk = lab.disk(content=b"0123456789").up()
        lab.world.write(disk.node, 3, b"XY")
        assert disk.chunks == (3, 2)
        assert lab.world.read(disk.node, 0, 10) == b"012XY56789"

    def test_the_base_is_never_written(self, lab: Lab) -> None:
        disk = lab.disk(content=b"base").up()
        before = lab.kernel.identify(disk.base)
        lab.world.write(disk.node, 0, b"disk")
        assert lab.world.read(disk.base, 0, 4) == b"base"
        assert lab.kernel.identify(disk.base) == before

    def test_the_next_life_finds_everything(self, lab: Lab) -> None:
        disk = lab.disk(origin=2 * MIB, cow=4 * MIB).up()
        fill(lab, disk, upto=300)
        lab.world.write(disk.node, 7 * CHUNK, b"seven")
        used = disk.chunks
        disk.remove()
        disk.up()
        assert disk.chunks == used
        assert lab.world.read(disk.node, 7 * CHUNK, 6) == b"seveny"
        assert lab.world.read(disk.node, 400 * CHUNK, 1) == b"\0"

    def test_an_old_chunk_size_wins_over_the_table(self, lab: Lab) -> None:
        disk = lab.disk(header=struct.pack("<4I", MAGIC, 1, 1, 16)).up()
        seen = disk.observed
        assert seen.table is not None
        assert seen.table.chunk == Sectors(16)
        assert disk.status.used == Sectors(32)


class TestInvalid:
    def test_an_invalid_header_makes_an_invalid_device(self, lab: Lab) -> None:
        disk = lab.disk(header=struct.pack("<4I", MAGIC, 0, 1, 8)).up()
        assert disk.observed.live
        lost_for_ever(lab, disk)

    def test_a_full_store(self, lab: Lab) -> None:
        disk = lab.disk(cow=5 * CHUNK).up()
        fill(lab, disk, upto=3)
        assert disk.status.used == disk.status.total
        assert disk.observed.event_nr == 0
        fails(lab, disk, 3)
        assert disk.observed.event_nr == 1
        fails(lab, disk, 4)
        assert disk.observed.event_nr == 1
        lost_for_ever(lab, disk)

    @pytest.mark.parametrize(("chunks", "last"), [(257, 255), (258, 255), (259, 256), (260, 257)])
    def test_a_full_area_needs_room_for_the_next(self, lab: Lab, chunks: int, last: int) -> None:
        disk = lab.disk(origin=2 * MIB, cow=chunks * CHUNK).up()
        fill(lab, disk, upto=last)
        assert disk.status.health is SnapshotHealth.VALID
        fails(lab, disk, last)
        assert disk.status == INVALID

    def test_a_whole_rewrite_fits_into_our_size(self, lab: Lab) -> None:
        size = 2 * MIB
        disk = lab.disk(origin=size, cow=size + size // 256 + 2 * CHUNK).up()
        fill(lab, disk, upto=size // CHUNK)
        assert disk.status.health is SnapshotHealth.VALID

    def test_the_file_system_is_full(self, small_lab: Lab) -> None:
        disk = small_lab.disk(cow=2 * MIB).up()
        free = small_lab.kernel.free_space(disk.cow).available.count // CHUNK
        fill(small_lab, disk, upto=free)
        assert disk.status.health is SnapshotHealth.VALID
        fails(small_lab, disk, free)
        assert disk.observed.event_nr == 1
        lost_for_ever(small_lab, disk)

    def test_what_was_copied_can_be_written_in_a_full_file_system(self, small_lab: Lab) -> None:
        disk = small_lab.disk(cow=2 * MIB).up()
        free = small_lab.kernel.free_space(disk.cow).available.count // CHUNK
        fill(small_lab, disk, upto=free)
        fill(small_lab, disk, upto=free)
        assert disk.status.health is SnapshotHealth.VALID

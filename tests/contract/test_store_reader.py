"""The store read from its file says what the status says, and holds what the device shows."""

from __future__ import annotations

import random
from pathlib import Path

from reconciler.store import files, reader
from statemachine.observed import SnapshotHealth, SnapshotStatus
from statemachine.units import Bytes
from tests.contract.disk import CHUNK, MIB, Disk, Lab

ORIGIN = 8 * MIB
COW = 9 * MIB
FILLS = (0, 1, 255, 256, 257, 512, 1000)
STRIDE = 389
"""It shares no factor with the disk's chunks, so all of them are written, each once."""


def copy_of_cow(lab: Lab, disk: Disk, path: Path) -> Path:
    """Copy a CoW file out of its world, which may be one in memory."""
    path.write_bytes(lab.world.read(disk.cow, 0, COW))
    return path


def overlaid(lab: Lab, disk: Disk, cow: Path) -> bytes:
    """Put the chunks of a CoW file over the base."""
    whole = bytearray(lab.world.read(disk.base, 0, ORIGIN))
    with files.opened(cow) as descriptor:
        header, size = reader.read_header(descriptor), reader.file_size(descriptor)
        assert header is not None
        found = reader.exceptions(descriptor, header, size=size, disk=Bytes(ORIGIN))
        raw = cow.read_bytes()
        for each in found:
            data = raw[each.new * CHUNK : (each.new + 1) * CHUNK]
            whole[each.old * CHUNK : (each.old + 1) * CHUNK] = data
    return bytes(whole)


def write(lab: Lab, disk: Disk, number: int) -> None:
    """Write the chunk that is next in a scattered order; every third one in part only."""
    at = number * STRIDE % (ORIGIN // CHUNK) * CHUNK
    data = number.to_bytes(4, "little") * (CHUNK // 4)
    lab.world.write(disk.node, at, data[: 100 if number % 3 == 0 else CHUNK])


def test_usage_is_the_status_and_the_overlay_is_the_device(lab: Lab, tmp_path: Path) -> None:
    content = random.Random(7).randbytes(ORIGIN)  # noqa: S311 - any bytes, the same each time
    disk = lab.disk(origin=ORIGIN, cow=COW, content=content).up()
    written = 0
    for fill in FILLS:
        for number in range(written, fill):
            write(lab, disk, number)
        written = fill
        cow = copy_of_cow(lab, disk, tmp_path / "cow")
        assert files.usage(cow) == disk.status
        report = files.check(cow, disk=Bytes(ORIGIN))
        assert (report.findings, report.exceptions, report.status) == ((), fill, disk.status)
        assert overlaid(lab, disk, cow) == lab.world.read(disk.node, 0, ORIGIN)
    shown, status = lab.world.read(disk.node, 0, ORIGIN), disk.status
    disk.remove()
    cow = copy_of_cow(lab, disk, tmp_path / "cow")
    assert files.usage(cow) == status
    assert overlaid(lab, disk, cow) == shown
    assert disk.up().status == status


def test_a_lost_store_is_shown_as_the_kernel_shows_it(lab: Lab, tmp_path: Path) -> None:
    disk = lab.disk(cow=COW).up()
    disk.remove()
    lab.world.write(disk.cow, 4, bytes(4))
    cow = copy_of_cow(lab, disk, tmp_path / "cow")
    expected = SnapshotStatus(health=SnapshotHealth.INVALID)
    assert files.usage(cow) == expected
    assert disk.up().status == expected


def test_an_unused_file_is_shown_as_its_first_life_will(lab: Lab, tmp_path: Path) -> None:
    disk = lab.disk(cow=COW)
    before = files.usage(copy_of_cow(lab, disk, tmp_path / "cow"))
    assert disk.up().status == before

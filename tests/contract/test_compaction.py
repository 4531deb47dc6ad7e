"""A store that is written anew: on files as in the simulation, and nothing but what was meant."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from reconciler.kernel.storejob import Compaction, StoreJob
from statemachine.errors import IdentityMismatch
from statemachine.fileidentity import FileIdentity
from statemachine.units import Bytes
from tests.contract.disk import CHUNK, MIB, Disk, Lab


def identity(lab: Lab, path: Path) -> FileIdentity:
    found = lab.kernel.identify(path)
    assert found is not None
    return found


def job(lab: Lab, disk: Disk) -> StoreJob:
    return StoreJob(
        path=disk.cow,
        expected=identity(lab, disk.cow),
        into=disk.cow.with_name(".new"),
        base=disk.base,
        base_expected=identity(lab, disk.base),
        disk=Bytes(MIB),
    )


def written(lab: Lab) -> tuple[Disk, bytes]:
    """Write data, zeros and what the base has; returns the disk without device, its content."""
    disk = lab.disk(content=b"base" * CHUNK).up()
    for number in range(300):  # more than one area
        if number < 100 or number >= 280:
            lab.world.write(disk.node, (number % 256) * CHUNK, bytes([number % 255 + 1]) * CHUNK)
    lab.world.write(disk.node, 0, b"base" * (CHUNK // 4))
    lab.world.write(disk.node, CHUNK, bytes(CHUNK))
    content = lab.world.read(disk.node, 0, MIB)
    assert disk.remove()
    return disk, content


def test_the_disk_shows_the_same_over_the_new_store(lab: Lab) -> None:
    disk, content = written(lab)
    wanted = job(lab, disk)
    done = lab.kernel.compact_store(wanted)
    assert done.made == identity(lab, wanted.into)
    assert done.after < done.before
    assert done.dropped == 1
    assert identity(lab, wanted.into).size == wanted.expected.size
    lab.detach(disk.cow_loop)
    assert lab.kernel.swap_file(wanted.into, done.made, disk.cow, wanted.expected)
    assert lab.kernel.identify(wanted.into) is None
    assert identity(lab, disk.cow).inode == done.made.inode
    again = attrs.evolve(disk, cow_loop=lab.attach(disk.cow)).up()
    assert lab.world.read(again.node, 0, MIB) == content


def test_an_empty_store_and_one_that_is_small_are_left(lab: Lab) -> None:
    disk = lab.disk()
    assert lab.kernel.compact_store(job(lab, disk)).made is None
    disk.up()
    lab.world.write(disk.node, 0, b"data")
    assert disk.remove()
    done = lab.kernel.compact_store(job(lab, disk))
    assert done == Compaction(made=None, before=done.before, after=done.before)
    assert lab.kernel.identify(disk.cow.with_name(".new")) is None


def test_other_files_than_expected_are_left_alone(lab: Lab) -> None:
    disk, _ = written(lab)
    wanted = job(lab, disk)
    other = attrs.evolve(wanted.expected, inode=wanted.expected.inode + 1000)
    for wrong in (attrs.evolve(wanted, expected=other), attrs.evolve(wanted, base_expected=other)):
        with pytest.raises(IdentityMismatch):
            lab.kernel.compact_store(wrong)
    done = lab.kernel.compact_store(wanted)
    assert done.made is not None
    for made, replaces in ((other, wanted.expected), (done.made, other)):
        with pytest.raises(IdentityMismatch):
            lab.kernel.swap_file(wanted.into, made, disk.cow, replaces)
    assert identity(lab, disk.cow) == wanted.expected

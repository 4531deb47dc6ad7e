"""Whole lives of disks through the port, and strangers who are seen and never touched."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from statemachine.errors import ForeignDevice
from statemachine.observed import LinkKind
from tests.contract.disk import CHUNK, Disk, Lab, eventually, new_uuid


def paused(lab: Lab, disk: Disk) -> None:
    """Take a disk's kernel side away and keep its CoW file."""
    disk.remove()
    lab.detach(disk.cow_loop)
    lab.detach(disk.base_loop)


def restored(lab: Lab, disk: Disk) -> Disk:
    """Bring a paused disk back on new loops, in a later life of its CoW file."""
    return attrs.evolve(
        disk,
        base_loop=lab.attach(disk.base, read_only=True),
        cow_loop=lab.attach(disk.cow),
    ).up()


def test_data_outlives_pause_and_restore(lab: Lab) -> None:
    disk = lab.disk(content=b"base").up()
    lab.world.write(disk.node, CHUNK, b"mine")
    for _ in range(3):
        paused(lab, disk)
        assert lab.kernel.dm(disk.name) is None
        disk = restored(lab, disk)
        assert lab.world.read(disk.node, 0, 4) == b"base"
        assert lab.world.read(disk.node, CHUNK, 4) == b"mine"
    assert disk.chunks == (3, 2)


def test_disks_on_one_base_are_private(lab: Lab) -> None:
    first = lab.disk("first", content=b"base").up()
    file = lab.file("second.cow", 2 * 1024 * 1024)
    second = attrs.evolve(lab.other(first, "second"), cow=file, cow_loop=lab.attach(file)).up()
    lab.world.write(first.node, 0, b"1st!")
    lab.world.write(second.node, 0, b"2nd!")
    assert lab.world.read(first.node, 0, 4) == b"1st!"
    assert lab.world.read(second.node, 0, 4) == b"2nd!"
    assert lab.world.read(first.base, 0, 4) == b"base"


def test_the_base_loop_goes_with_the_last_disk_on_it(lab: Lab) -> None:
    first = lab.disk("first").up()
    file = lab.file("second.cow", 2 * 1024 * 1024)
    second = attrs.evolve(lab.other(first, "second"), cow=file, cow_loop=lab.attach(file)).up()
    lab.kernel.loop_set_autoclear(first.base_loop)
    first.remove()
    assert lab.kernel.loop(first.base_loop.number) is not None
    second.remove()
    assert eventually(lambda: lab.kernel.loop(first.base_loop.number) is None)


def test_a_half_made_device_can_be_finished(lab: Lab) -> None:
    disk = lab.disk(content=b"base")
    disk.create()  # and here somebody crashed
    assert disk.name in [line.name for line in lab.kernel.dm_names()]
    assert disk.observed.table is None
    disk.load()  # and here again
    assert disk.observed.live is False
    disk.resume()
    assert lab.world.read(disk.node, 0, 4) == b"base"


def test_a_deleted_cow_stays_alive_below_its_disk(lab: Lab) -> None:
    disk = lab.disk().up()
    lab.delete(disk.cow)
    lab.world.write(disk.node, 0, b"still")
    assert lab.world.read(disk.node, 0, 5) == b"still"
    assert lab.kernel.cow_header(disk.cow) == "missing"
    assert lab.kernel.identify(disk.cow) is None


def test_a_replaced_cow_is_another_file(lab: Lab) -> None:
    disk = lab.disk().up()
    before = lab.kernel.identify(disk.cow)
    lab.delete(disk.cow)
    lab.file(disk.cow.name, 2 * 1024 * 1024)
    after = lab.kernel.identify(disk.cow)
    assert before is not None
    assert after is not None
    assert disk.cow_loop.backs(before)
    assert not disk.cow_loop.backs(after)


def test_a_dm_device_of_somebody_is_seen_and_refused(lab: Lab) -> None:
    foreign = attrs.evolve(lab.disk(), uuid=f"LVM-{new_uuid()}").up()
    listed = {line.name: line.uuid for line in lab.kernel.dm_names()}
    assert listed[foreign.name] == foreign.uuid
    with pytest.raises(ForeignDevice):
        lab.kernel.dm_remove(foreign.name, new_uuid())
    assert foreign.observed.live


def test_a_link_may_dangle_after_somebody_removed_the_device(lab: Lab) -> None:
    disk = lab.disk().up()
    link, node = lab.world.folder / "rootfs", str(disk.node)
    lab.kernel.put_link(link, node, replaces=None)
    disk.remove()
    seen = lab.kernel.read_link(link)
    assert (seen.kind, seen.target) == (LinkKind.SYMLINK, node)
    assert eventually(lambda: lab.kernel.identify(link, follow=True) is None)
    assert lab.kernel.drop_link(link, node) is True


def test_our_link_in_dev_mapper_can_be_taken_away(lab: Lab) -> None:
    disk = lab.disk().up()
    link, target = Path("/dev/mapper") / disk.name, f"../{disk.node.name}"
    lab.kernel.put_link(link, target, replaces=None)
    disk.remove()
    lab.kernel.drop_link(link, target)  # udev may have been first
    assert eventually(lambda: lab.kernel.read_link(link).kind is LinkKind.MISSING)

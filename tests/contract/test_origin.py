"""A base that is made longer by zeros: the origin of a disk that is larger than its base."""

from __future__ import annotations

import errno

import attrs
import pytest

from statemachine.errors import ActionError, TransientError
from statemachine.observed import OriginTable
from statemachine.units import Sectors
from tests.contract.disk import CHUNK, Disk, Lab


def longer(lab: Lab, disk: Disk, sectors: int) -> tuple[str, OriginTable]:
    """Make an origin over a disk's base; returns its name and its table."""
    name, uuid = f"{disk.name}:origin", f"{disk.uuid}-origin"
    table = OriginTable(
        base=disk.base_loop.device, base_length=disk.length, length=Sectors(sectors)
    )
    lab.kernel.dm_create(name, uuid)
    lab.kernel.dm_load(uuid, table)
    assert lab.kernel.dm_resume(uuid) is True
    return name, table


def test_its_table_is_read_back_and_it_is_no_snapshot(lab: Lab) -> None:
    disk = lab.disk()
    name, table = longer(lab, disk, disk.length.count + 16)
    seen = lab.kernel.dm(name)
    assert seen is not None
    assert (seen.origin, seen.table, seen.status, seen.live) == (table, None, None, True)
    assert disk.base_loop.number in [loop.number for loop in lab.kernel.loops()]


def test_a_live_snapshot_gets_longer_over_another_origin_and_over_the_same(lab: Lab) -> None:
    disk = lab.disk().up()
    length = disk.length.count
    lab.world.write(disk.node, CHUNK, b"before")
    for sectors in (length + 16, length + 33):
        name, table = (f"{disk.name}:origin", None)
        if lab.kernel.dm(name) is None:
            longer(lab, disk, sectors)
        else:
            table = OriginTable(
                base=disk.base_loop.device, base_length=disk.length, length=Sectors(sectors)
            )
            lab.kernel.dm_load(f"{disk.uuid}-origin", table)
            lab.kernel.dm_resume(f"{disk.uuid}-origin")
        origin = lab.kernel.dm(name)
        assert origin is not None
        now = disk.observed.table
        assert now is not None
        lab.kernel.dm_suspend(disk.uuid)
        wanted = attrs.evolve(now, origin=origin.device, length=Sectors(sectors))
        lab.kernel.dm_load(disk.uuid, wanted)
        lab.kernel.dm_resume(disk.uuid)
        assert disk.observed.table == wanted
        assert lab.world.read(disk.node, CHUNK, 6) == b"before"
        end = (sectors - 1) * 512
        assert lab.world.read(disk.node, end, 512) == bytes(512)
        lab.world.write(disk.node, end, b"e" * 512)
        assert lab.world.read(disk.node, end, 512) == b"e" * 512


def test_an_origin_in_use_stays(lab: Lab) -> None:
    disk = lab.disk()
    name, _ = longer(lab, disk, disk.length.count + 16)
    origin = lab.kernel.dm(name)
    assert origin is not None
    disk.create()
    lab.kernel.dm_load(disk.uuid, attrs.evolve(disk.table, origin=origin.device))
    with pytest.raises(TransientError) as raised:
        lab.kernel.dm_remove(name, f"{disk.uuid}-origin")
    assert raised.value.errno == errno.EBUSY
    disk.remove()
    assert lab.kernel.dm_remove(name, f"{disk.uuid}-origin") is True


def test_a_base_that_is_shorter_than_is_said_is_refused(lab: Lab) -> None:
    disk = attrs.evolve(lab.disk())
    disk = attrs.evolve(disk, length=disk.length + Sectors(8))
    with pytest.raises(ActionError) as raised:
        longer(lab, disk, disk.length.count + 16)
    assert raised.value.errno == errno.EINVAL

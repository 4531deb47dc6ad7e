"""Device-mapper: half-made, loaded, live, suspended, removed; and what refuses."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

import attrs
import pytest

from statemachine.errors import ForeignDevice, IdentityMismatch, PermanentError, TransientError
from statemachine.observed import SnapshotHealth
from statemachine.units import Sectors
from tests.contract.disk import CHUNK, MIB, Disk, Lab, eventually, new_uuid, patiently, table

MAGIC = 0x70416E53


class TestCreate:
    def test_a_half_made_device_has_no_table_and_no_node(self, lab: Lab) -> None:
        disk = lab.disk()
        number = disk.create()
        seen = disk.observed
        assert (seen.name, seen.uuid, seen.device) == (disk.name, disk.uuid, number)
        assert (seen.live, seen.suspended, seen.open_count) == (False, False, 0)
        assert (seen.table, seen.status, seen.event_nr) == (None, None, 0)
        assert lab.kernel.identify(disk.node) is None

    def test_it_is_listed_with_its_uuid(self, lab: Lab) -> None:
        disk = lab.disk()
        number = disk.create()
        listed = [(each.name, each.uuid, each.device) for each in lab.kernel.dm_names()]
        assert (disk.name, disk.uuid, number) in listed

    def test_a_name_is_given_once(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        with pytest.raises(TransientError) as raised:
            lab.kernel.dm_create(disk.name, new_uuid())
        assert raised.value.errno == errno.EBUSY
        assert disk.observed.uuid == disk.uuid

    def test_a_uuid_is_given_once(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        with pytest.raises(TransientError) as raised:
            lab.kernel.dm_create(f"{lab.world.prefix}other", disk.uuid)
        assert raised.value.errno == errno.EBUSY
        assert lab.kernel.dm(f"{lab.world.prefix}other") is None

    def test_a_name_with_a_slash_is_none(self, lab: Lab) -> None:
        with pytest.raises(PermanentError) as raised:
            lab.kernel.dm_create(f"{lab.world.prefix}a/b", new_uuid())
        assert raised.value.errno == errno.EINVAL

    def test_the_lowest_free_number_is_reused_at_once(self, lab: Lab) -> None:
        disk = lab.disk()
        number = disk.create()
        disk.remove()
        assert lab.kernel.dm_create(f"{lab.world.prefix}next", new_uuid()) == number

    def test_no_device_of_this_name(self, lab: Lab) -> None:
        assert lab.kernel.dm(f"{lab.world.prefix}missing") is None


class TestLoad:
    def test_the_table_is_not_live_yet(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        disk.load()
        seen = disk.observed
        assert (seen.live, seen.table, seen.status) == (False, None, None)

    def test_the_node_is_there_now(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        disk.load()
        identity = lab.kernel.identify(disk.node)
        assert identity is not None
        assert identity.kind == "device"

    def test_it_writes_the_header_of_an_empty_store(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        assert lab.kernel.cow_header(disk.cow) == "empty"
        disk.load()
        assert lab.kernel.cow_header(disk.cow) == "valid"
        assert lab.kernel.allocated(disk.cow).count == 2 * CHUNK

    def test_into_no_device(self, lab: Lab) -> None:
        with pytest.raises(TransientError) as raised:
            lab.disk().load()
        assert raised.value.errno == errno.ENXIO

    @pytest.mark.parametrize(
        ("header", "number"),
        [
            (b"this is somebody's file", errno.ENXIO),
            (struct.pack("<4I", MAGIC, 1, 2, 8), errno.EINVAL),
            (struct.pack("<4I", MAGIC, 1, 1, 7), errno.EINVAL),
        ],
    )
    def test_what_is_no_exception_store_is_refused_and_kept(
        self, lab: Lab, header: bytes, number: int
    ) -> None:
        disk = lab.disk(header=header)
        disk.create()
        refused(disk.load, number)
        assert lab.world.read(disk.cow, 0, len(header)) == header
        assert disk.observed.live is False

    # Below one sector kernels differ: the block layer checks nothing on a device of size 0.
    @pytest.mark.parametrize("size", [512, CHUNK, CHUNK + 2048])
    def test_a_cow_without_room_for_header_and_metadata(self, lab: Lab, size: int) -> None:
        disk = lab.disk(cow=size)
        disk.create()
        refused(disk.load, errno.EIO)

    def test_a_cow_that_takes_no_data(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        read_only = lab.attach(disk.cow, read_only=True)
        bad = table(disk.length, disk.base_loop, read_only)
        refused(lambda: lab.kernel.dm_load(disk.uuid, bad), errno.EIO)

    def test_a_loop_that_is_gone(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        lab.detach(disk.cow_loop)
        refused(disk.load, errno.EIO)

    def test_a_table_longer_than_its_origin(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        longer = attrs.evolve(disk, length=disk.length + Sectors(8))
        refused(longer.load, errno.EINVAL)

    @pytest.mark.parametrize("sectors", [8, 3])
    def test_a_shorter_one_is_accepted(self, lab: Lab, sectors: int) -> None:
        disk = attrs.evolve(lab.disk(), length=Sectors(sectors)).up()
        assert disk.observed.table == disk.table

    def test_a_table_of_no_length(self, lab: Lab) -> None:
        disk = attrs.evolve(lab.disk(), length=Sectors(0))
        disk.create()
        refused(disk.load, errno.EINVAL)

    def test_origin_and_cow_are_one_device(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        bad = table(disk.length, disk.cow_loop, disk.cow_loop)
        refused(lambda: lab.kernel.dm_load(disk.uuid, bad), errno.EINVAL)

    def test_a_refused_table_holds_nothing(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        longer = attrs.evolve(disk, length=disk.length + Sectors(8))
        refused(longer.load, errno.EINVAL)
        assert lab.detach(disk.cow_loop) is True
        assert lab.detach(disk.base_loop) is True

    def test_an_origin_that_is_gone_is_not_noticed(self, lab: Lab) -> None:
        disk = lab.disk(content=b"base")
        assert lab.detach(disk.base_loop) is True
        assert eventually(lambda: lab.kernel.loop(disk.base_loop.number) is None)
        disk.up()
        assert disk.status.health is SnapshotHealth.VALID
        with pytest.raises(OSError, match=r".") as raised:
            lab.world.read(disk.node, 0, 4)
        assert raised.value.errno == errno.EIO

    def test_and_its_number_is_offered_to_everybody_and_bound_by_nobody(self, lab: Lab) -> None:
        disk = lab.disk()
        path = lab.file("next", CHUNK)
        assert lab.detach(disk.base_loop) is True
        assert eventually(lambda: lab.kernel.loop(disk.base_loop.number) is None)
        disk.create()
        disk.load()
        with pytest.raises(TransientError) as raised:
            lab.attach(path)
        assert raised.value.errno == errno.EBUSY
        disk.remove()
        assert lab.attach(path).number == disk.base_loop.number

    def test_two_devices_cannot_be_live_on_one_cow(self, lab: Lab) -> None:
        disk = lab.disk().up()
        second = lab.other(disk, "second")
        second.create()
        second.load()
        refused(second.resume, errno.EINVAL)
        assert (second.observed.live, second.observed.suspended) == (True, True)
        assert disk.status.health is SnapshotHealth.VALID

    def test_a_cow_in_a_table_that_is_not_live_yet(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        disk.load()
        second = lab.other(disk, "second")
        second.create()
        refused(second.load, errno.EINVAL)
        refused(disk.load, errno.EINVAL)
        disk.resume()
        assert disk.status.health is SnapshotHealth.VALID


class TestResumeAndSuspend:
    def test_resume_makes_the_table_live(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        disk.load()
        assert disk.resume() is True
        seen = disk.observed
        assert (seen.live, seen.suspended, seen.table) == (True, False, disk.table)
        assert disk.resume() is False

    def test_resume_without_a_table(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        refused(disk.resume, errno.EINVAL)
        assert disk.observed.suspended is False

    def test_suspend_and_resume_are_idempotent(self, lab: Lab) -> None:
        disk = lab.disk().up()
        assert lab.kernel.dm_suspend(disk.uuid) is True
        assert lab.kernel.dm_suspend(disk.uuid) is False
        assert disk.observed.suspended
        assert disk.resume() is True
        assert disk.resume() is False
        assert not disk.observed.suspended

    def test_a_flush_leaves_all_as_it_is(self, lab: Lab) -> None:
        disk = lab.disk().up()
        lab.world.write(disk.node, 0, b"data")
        for suspended in (False, True):  # a suspended one would have to wait
            lab.kernel.dm_flush(disk.uuid)
            assert disk.observed.suspended is suspended
            lab.kernel.dm_suspend(disk.uuid)
        disk.resume()
        assert lab.world.read(disk.node, 0, 4) == b"data"

    def test_a_transient_store_is_gone_with_its_device(self, lab: Lab) -> None:
        disk = lab.disk()
        table = attrs.evolve(disk.table, persistent="N")
        chunk = table.chunk.count
        for _ in range(2):
            disk.create()
            lab.kernel.dm_load(disk.uuid, table)
            assert disk.resume() is True
            assert disk.observed.table == table
            before = lab.world.read(disk.node, 0, 4)
            assert before != b"data"
            lab.world.write(disk.node, 0, b"data")
            lab.world.write(disk.node, 5 * chunk * 512, b"more")
            status = disk.status
            assert (status.used.count, status.metadata.count) == (2 * chunk, 0)
            assert lab.world.read(disk.node, 0, 4) == b"data"
            disk.remove()

    def test_a_suspended_one_keeps_table_and_status(self, lab: Lab) -> None:
        disk = lab.disk().up()
        before = disk.observed
        lab.kernel.dm_suspend(disk.uuid)
        after = disk.observed
        assert (after.live, after.table, after.status) == (True, before.table, before.status)
        disk.resume()

    def test_a_half_made_one_can_be_suspended_and_not_resumed(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        assert lab.kernel.dm_suspend(disk.uuid) is True
        refused(disk.resume, errno.EINVAL)
        disk.load()
        assert disk.resume() is True
        assert disk.observed.suspended is False

    def test_no_such_device(self, lab: Lab) -> None:
        for change in (lab.kernel.dm_resume, lab.kernel.dm_suspend):
            with pytest.raises(TransientError) as raised:
                change(new_uuid())
            assert raised.value.errno == errno.ENXIO

    def test_the_same_table_again_keeps_the_data(self, lab: Lab) -> None:
        disk = lab.disk().up()
        lab.world.write(disk.node, 0, b"kept")
        used = disk.chunks
        disk.load()
        assert disk.resume() is True
        assert disk.chunks == used
        assert lab.world.read(disk.node, 0, 4) == b"kept"


class TestRemove:
    def test_once_and_not_again(self, lab: Lab) -> None:
        disk = lab.disk().up()
        assert disk.remove() is True
        assert lab.kernel.dm(disk.name) is None
        assert lab.kernel.dm_remove(disk.name, disk.uuid) is False

    def test_the_node_goes_with_it(self, lab: Lab) -> None:
        disk = lab.disk().up()
        node = disk.node
        disk.remove()
        assert eventually(lambda: lab.kernel.identify(node) is None)

    def test_a_half_made_one(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        assert lab.kernel.dm_remove(disk.name, disk.uuid) is True

    def test_a_loaded_one(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        disk.load()
        assert disk.remove() is True
        assert lab.detach(disk.cow_loop) is True

    def test_a_suspended_one(self, lab: Lab) -> None:
        disk = lab.disk().up()
        lab.kernel.dm_suspend(disk.uuid)
        assert disk.remove() is True

    def test_a_user_keeps_it(self, lab: Lab) -> None:
        disk = lab.disk().up()
        handle = lab.world.open(disk.node, write=True)
        assert eventually(lambda: disk.observed.open_count == 1)
        with pytest.raises(TransientError) as raised:
            lab.kernel.dm_remove(disk.name, disk.uuid)
        assert raised.value.errno == errno.EBUSY
        assert disk.status.health is SnapshotHealth.VALID
        handle.close()
        assert eventually(lambda: disk.observed.open_count == 0)
        assert disk.remove() is True

    def test_users_are_counted_and_named(self, lab: Lab) -> None:
        disk = lab.disk().up()
        handles = [lab.world.open(disk.node) for _ in range(3)]
        assert eventually(lambda: disk.observed.open_count == len(handles))
        named = lab.kernel.holders(disk.observed.device)
        assert "process" in {holder.kind for holder in named}

    def test_another_generation_is_not_the_one(self, lab: Lab) -> None:
        disk = lab.disk().up()
        with pytest.raises(IdentityMismatch):
            lab.kernel.dm_remove(disk.name, new_uuid(2))
        assert disk.status.health is SnapshotHealth.VALID

    @pytest.mark.parametrize("uuid", ["LVM-somebodys", "byre-lower-case", "mpath-1"])
    def test_a_foreign_device_is_refused(self, lab: Lab, uuid: str) -> None:
        foreign = attrs.evolve(lab.disk(), uuid=f"{uuid}-{new_uuid()}").up()
        with pytest.raises(ForeignDevice):
            lab.kernel.dm_remove(foreign.name, new_uuid())
        assert foreign.status.health is SnapshotHealth.VALID

    def test_somebody_removed_it_by_hand(self, lab: Lab) -> None:
        disk = lab.disk().up()
        lab.world.remove_dm_by_hand(disk.name)
        assert lab.kernel.dm(disk.name) is None
        assert lab.kernel.dm_remove(disk.name, disk.uuid) is False


def refused(change: Callable[[], object], number: int) -> None:
    """Expect that a change fails with this errno, whatever its consequence."""
    with pytest.raises((PermanentError, TransientError)) as raised:
        change()
    assert raised.value.errno == number


def test_names_are_all_different_disks(lab: Lab) -> None:
    disks: list[Disk] = [lab.disk(label, origin=MIB).up() for label in ("a", "b")]
    names = {line.name for line in lab.kernel.dm_names()}
    assert {disk.name for disk in disks} <= names
    for disk in disks:
        patiently(disk.remove)

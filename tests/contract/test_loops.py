"""Loop devices: bound by identity, detached only when nobody has them open."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from statemachine.errors import IdentityMismatch, PermanentError, TransientError
from statemachine.observed import DeviceNumber, Loop
from statemachine.units import Bytes, Sectors
from tests.contract.disk import CHUNK, Lab, eventually


def looked(lab: Lab, loop: Loop) -> Loop:
    found = lab.kernel.loop(loop.number)
    assert found is not None, loop.path
    return found


class TestAttach:
    def test_what_was_asked_for_is_what_is_seen(self, lab: Lab) -> None:
        path = lab.file("file", 3 * CHUNK)
        identity = lab.kernel.identify(path)
        assert identity is not None
        loop = lab.attach(path, marker="BYRE-marker", read_only=False)
        assert loop.backs(identity)
        assert loop.device == DeviceNumber(7, loop.number)
        assert (loop.backing_path, loop.marker) == (str(path), "BYRE-marker")
        assert (loop.size, loop.read_only, loop.autoclear) == (Sectors(24), False, False)
        assert looked(lab, loop) == loop
        assert loop in lab.kernel.loops()

    def test_data_goes_through(self, lab: Lab) -> None:
        path = lab.file("file", 2 * CHUNK, b"before")
        loop = lab.attach(path)
        assert lab.world.read(Path(loop.path), 0, 6) == b"before"
        lab.world.write(Path(loop.path), CHUNK, b"through")
        assert lab.world.read(path, CHUNK, 7) == b"through"

    def test_a_read_only_one_takes_no_data(self, lab: Lab) -> None:
        loop = lab.attach(lab.file("file", CHUNK), read_only=True)
        assert loop.read_only
        with pytest.raises(OSError, match=r".") as raised:
            lab.world.write(Path(loop.path), 0, b"x")
        assert raised.value.errno == errno.EPERM

    def test_all_are_listed_by_number(self, lab: Lab) -> None:
        made = [lab.attach(lab.file(name, CHUNK)) for name in "abc"]
        numbers = [loop.number for loop in lab.kernel.loops()]
        assert numbers == sorted(numbers)
        assert set(numbers) >= {loop.number for loop in made}

    def test_a_file_can_have_two(self, lab: Lab) -> None:
        path = lab.file("file", CHUNK)
        first, second = lab.attach(path), lab.attach(path)
        assert first.number != second.number
        assert first.backing_inode == second.backing_inode

    def test_a_part_of_a_sector_at_the_end_is_not_seen(self, lab: Lab) -> None:
        assert lab.attach(lab.file("file", CHUNK + 511)).size == Sectors(8)
        assert lab.attach(lab.file("tiny", 100)).size == Sectors(0)

    def test_the_longest_marker(self, lab: Lab) -> None:
        assert lab.attach(lab.file("file", CHUNK), marker="m" * 63).marker == "m" * 63

    def test_a_base_may_be_behind_a_symlink(self, lab: Lab) -> None:
        path = lab.file("file", CHUNK)
        link = lab.world.folder / "link"
        lab.kernel.put_link(link, "file", replaces=None)
        assert lab.attach(link, read_only=True).backing_path == str(path)

    def test_a_file_of_ours_may_not(self, lab: Lab) -> None:
        lab.file("file", CHUNK)
        link = lab.world.folder / "link"
        lab.kernel.put_link(link, "file", replaces=None)
        with pytest.raises(PermanentError) as raised:
            lab.attach(link)
        assert raised.value.errno == errno.ELOOP

    def test_another_file_than_expected_is_refused(self, lab: Lab) -> None:
        expected = lab.kernel.identify(lab.file("old", CHUNK))
        path = lab.file("new", CHUNK)
        assert expected is not None
        before = lab.kernel.loops()
        with pytest.raises(IdentityMismatch):
            lab.kernel.loop_attach(path, expected, marker="", read_only=False)
        assert lab.kernel.loops() == before

    def test_a_missing_file(self, lab: Lab) -> None:
        path = lab.file("file", CHUNK)
        expected = lab.kernel.identify(path)
        assert expected is not None
        lab.delete(path)
        with pytest.raises(PermanentError) as raised:
            lab.kernel.loop_attach(path, expected, marker="", read_only=True)
        assert raised.value.errno == errno.ENOENT

    @pytest.mark.parametrize(("read_only", "number"), [(True, errno.EINVAL), (False, errno.EISDIR)])
    def test_a_folder_is_no_file(self, lab: Lab, read_only: bool, number: int) -> None:  # noqa: FBT001
        with pytest.raises(PermanentError) as raised:
            lab.attach(lab.world.folder, read_only=read_only)
        assert raised.value.errno == number


class TestLook:
    def test_an_unbound_number_is_none(self, lab: Lab) -> None:
        loop = lab.attach(lab.file("file", CHUNK))
        lab.detach(loop)
        assert eventually(lambda: lab.kernel.loop(loop.number) is None)
        assert loop.number not in [each.number for each in lab.kernel.loops()]

    def test_a_number_that_never_was_is_none(self, lab: Lab) -> None:
        assert lab.kernel.loop(4099) is None

    def test_a_deleted_file_is_kept_alive_and_recognised(self, lab: Lab) -> None:
        path = lab.file("file", CHUNK, b"alive")
        loop = lab.attach(path)
        lab.delete(path)
        after = looked(lab, loop)
        assert after.backing_path == f"{path} (deleted)"
        assert (after.backing_device, after.backing_inode) == (
            loop.backing_device,
            loop.backing_inode,
        )
        assert lab.world.read(Path(loop.path), 0, 5) == b"alive"

    def test_a_deleted_file_takes_room_until_its_loop_goes(self, small_lab: Lab) -> None:
        path = small_lab.file("file", 8 * CHUNK, b"x" * 8 * CHUNK)
        room = small_lab.kernel.free_space(path).available
        loop = small_lab.attach(path)
        small_lab.delete(path)
        assert small_lab.kernel.free_space(path).available == room
        small_lab.detach(loop)
        after = room + Bytes(8 * CHUNK)
        assert eventually(lambda: small_lab.kernel.free_space(path).available == after)


class TestDetach:
    def test_once_and_not_again(self, lab: Lab) -> None:
        loop = lab.attach(lab.file("file", CHUNK))
        assert lab.detach(loop) is True
        assert lab.kernel.loop_detach(loop) is False

    def test_the_number_is_free_for_the_next(self, lab: Lab) -> None:
        loop = lab.attach(lab.file("file", CHUNK))
        lab.detach(loop)
        eventually(lambda: lab.kernel.loop(loop.number) is None)
        assert lab.attach(lab.file("next", CHUNK)).number == loop.number

    def test_a_number_that_is_another_files_now_is_refused(self, lab: Lab) -> None:
        loop = lab.attach(lab.file("file", CHUNK))
        lab.detach(loop)
        eventually(lambda: lab.kernel.loop(loop.number) is None)
        other = lab.attach(lab.file("next", CHUNK))
        assert other.number == loop.number
        with pytest.raises(IdentityMismatch):
            lab.kernel.loop_detach(loop)
        with pytest.raises(IdentityMismatch):
            lab.kernel.loop_set_autoclear(loop)
        assert looked(lab, other) == other

    def test_a_user_keeps_it(self, lab: Lab) -> None:
        loop = lab.attach(lab.file("file", CHUNK))
        handle = lab.world.open(Path(loop.path))
        with pytest.raises(TransientError) as raised:
            lab.kernel.loop_detach(loop)
        assert raised.value.errno == errno.EBUSY
        assert looked(lab, loop) == loop  # autoclear was set back
        handle.close()
        assert looked(lab, loop) == loop
        assert lab.detach(loop) is True

    def test_a_dm_device_keeps_both_of_its_loops(self, lab: Lab) -> None:
        disk = lab.disk().up()
        for loop in (disk.base_loop, disk.cow_loop):
            with pytest.raises(TransientError) as raised:
                lab.kernel.loop_detach(loop)
            assert raised.value.errno == errno.EBUSY
            assert looked(lab, loop) == loop

    def test_an_inactive_table_keeps_them_as_well(self, lab: Lab) -> None:
        disk = lab.disk()
        disk.create()
        disk.load()
        with pytest.raises(TransientError):
            lab.kernel.loop_detach(disk.cow_loop)
        disk.remove()
        assert lab.detach(disk.cow_loop) is True

    def test_by_hand_it_only_gets_autoclear(self, lab: Lab) -> None:
        disk = lab.disk().up()
        lab.world.detach_loop_by_hand(disk.cow_loop.number)
        assert looked(lab, disk.cow_loop).autoclear
        disk.remove()
        assert eventually(lambda: lab.kernel.loop(disk.cow_loop.number) is None)

    def test_autoclear_of_somebody_else_is_left_set(self, lab: Lab) -> None:
        disk = lab.disk().up()
        lab.kernel.loop_set_autoclear(disk.cow_loop)
        with pytest.raises(TransientError):
            lab.kernel.loop_detach(disk.cow_loop)
        assert looked(lab, disk.cow_loop).autoclear


class TestAutoclear:
    def test_the_last_user_takes_it_along(self, lab: Lab) -> None:
        loop = lab.attach(lab.file("file", CHUNK))
        first, last = lab.world.open(Path(loop.path)), lab.world.open(Path(loop.path))
        assert lab.kernel.loop_set_autoclear(loop) is True
        assert lab.kernel.loop_set_autoclear(loop) is False
        first.close()
        assert looked(lab, loop).autoclear
        last.close()
        assert eventually(lambda: lab.kernel.loop(loop.number) is None)

    def test_without_a_user_it_goes_at_once(self, lab: Lab) -> None:
        loop = lab.attach(lab.file("file", CHUNK))
        assert lab.kernel.loop_set_autoclear(loop) is True
        assert eventually(lambda: lab.kernel.loop(loop.number) is None)
        assert lab.kernel.loop_set_autoclear(loop) is False

    def test_removing_the_dm_device_takes_both_loops_along(self, lab: Lab) -> None:
        disk = lab.disk().up()
        for loop in (disk.base_loop, disk.cow_loop):
            assert lab.kernel.loop_set_autoclear(loop) is True
        disk.remove()
        for loop in (disk.base_loop, disk.cow_loop):
            assert eventually(lambda number=loop.number: lab.kernel.loop(number) is None)  # type: ignore[misc]


class TestKeep:
    def test_autoclear_is_taken_back_from_a_loop_in_use(self, lab: Lab) -> None:
        disk = lab.disk().up()
        lab.world.detach_loop_by_hand(disk.base_loop.number)
        assert looked(lab, disk.base_loop).autoclear
        assert lab.kernel.loop_keep(disk.base_loop) is True
        assert looked(lab, disk.base_loop) == disk.base_loop
        disk.remove()
        assert looked(lab, disk.base_loop) == disk.base_loop
        assert lab.detach(disk.base_loop) is True

    def test_one_without_autoclear_stays_as_it_is(self, lab: Lab) -> None:
        loop = lab.attach(lab.file("file", CHUNK), read_only=True)
        assert lab.kernel.loop_keep(loop) is True
        assert looked(lab, loop) == loop

    def test_one_that_is_gone_is_not_made_again(self, lab: Lab) -> None:
        loop = lab.attach(lab.file("file", CHUNK))
        lab.detach(loop)
        assert eventually(lambda: lab.kernel.loop(loop.number) is None)
        assert lab.kernel.loop_keep(loop) is False

    def test_a_number_that_is_another_files_now_is_refused(self, lab: Lab) -> None:
        loop = lab.attach(lab.file("file", CHUNK))
        lab.detach(loop)
        assert eventually(lambda: lab.kernel.loop(loop.number) is None)
        other = lab.attach(lab.file("next", CHUNK))
        assert other.number == loop.number
        with pytest.raises(IdentityMismatch):
            lab.kernel.loop_keep(loop)


class TestIsOpen:
    def test_a_file_that_nobody_uses_is_not(self, lab: Lab) -> None:
        path = lab.file("file", CHUNK, b"data")
        assert lab.kernel.is_open(path) is False
        assert lab.kernel.is_open(path) is False, "asking changes nothing"

    @pytest.mark.parametrize("read_only", [True, False])
    def test_a_loop_has_its_file_open(self, lab: Lab, *, read_only: bool) -> None:
        path = lab.file("file", CHUNK)
        loop = lab.attach(path, read_only=read_only)
        assert lab.kernel.is_open(path) is True
        lab.kernel.loop_detach(loop)
        assert eventually(lambda: lab.kernel.is_open(path) is False)

    def test_a_process_has_it_open(self, lab: Lab) -> None:
        path = lab.file("file", CHUNK)
        handle = lab.world.open(path)
        assert lab.kernel.is_open(path) is True
        handle.close()
        assert lab.kernel.is_open(path) is False

    def test_what_cannot_be_told_may_be_open(self, lab: Lab) -> None:
        assert lab.kernel.is_open(lab.world.folder / "missing") is True
        assert lab.kernel.is_open(lab.world.folder) is True


class TestHolders:
    def test_a_loop_is_held_by_the_dm_device_above(self, lab: Lab) -> None:
        disk = lab.disk().up()
        held = lab.kernel.holders(disk.cow_loop.device)
        assert ("dm", disk.name) in [(holder.kind, holder.name) for holder in held]

    def test_a_process_is_named(self, lab: Lab) -> None:
        loop = lab.attach(lab.file("file", CHUNK))
        handle = lab.world.open(Path(loop.path))
        named = [each for each in lab.kernel.holders(loop.device) if each.kind == "process"]
        assert [holder.pid for holder in named if holder.pid] != []
        handle.close()

    def test_nobody_holds_what_does_not_exist(self, lab: Lab) -> None:
        assert lab.kernel.holders(DeviceNumber(7, 4099)) == ()

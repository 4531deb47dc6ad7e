"""The port's questions about files, and the making and removing of files."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest

from reconciler.kernel.port import CloneMethod, CowHeader
from statemachine.errors import BlockedError, IdentityMismatch, PermanentError
from statemachine.fileidentity import FileIdentity
from statemachine.units import Bytes
from tests.contract.disk import CHUNK, KIB, MIB, Lab, eventually
from tests.contract.world import World

MAGIC = 0x70416E53


def found(world: World, path: Path, *, follow: bool = False) -> FileIdentity:
    identity = world.kernel.identify(path, follow=follow)
    assert identity is not None, path
    return identity


class TestHost:
    def test_everything_works_in_these_worlds(self, world: World) -> None:
        capabilities = world.kernel.capabilities()
        assert (capabilities.dm, capabilities.loop) == ("", "")

    def test_a_boot_has_one_id(self, world: World) -> None:
        assert world.kernel.boot_id()
        assert world.kernel.boot_id() == world.kernel.boot_id()


class TestIdentify:
    @pytest.mark.parametrize("where", ["missing", "missing/deeper", "file/below"])
    def test_nothing_there_is_none(self, world: World, where: str) -> None:
        world.make_file("file", 1)
        assert world.kernel.identify(world.folder / where) is None

    def test_a_file_has_its_size_and_kind(self, world: World) -> None:
        identity = found(world, world.make_file("file", 12345))
        assert (identity.size, identity.kind) == (Bytes(12345), "file")

    def test_a_folder_is_one(self, world: World) -> None:
        assert found(world, world.folder).kind == "folder"

    def test_writing_changes_the_content_and_not_the_file(self, world: World) -> None:
        path = world.make_file("file", CHUNK)
        before = found(world, path)

        def shows_a_write() -> bool:  # mtime moves by the tick: 1 to 10 ms
            world.write(path, 0, b"x")
            return not found(world, path).same_content(before, same_boot=True)

        assert eventually(shows_a_write)
        assert found(world, path).same_file(before, same_boot=True)

    def test_looking_changes_nothing(self, world: World) -> None:
        path = world.make_file("file", CHUNK)
        assert found(world, path) == found(world, path)

    def test_a_symlink_is_followed_only_if_told_to(self, world: World) -> None:
        path = world.make_file("file", CHUNK)
        link = world.folder / "link"
        world.kernel.put_link(link, "file", replaces=None)
        assert found(world, link).kind == "other"
        assert found(world, link, follow=True) == found(world, path)

    def test_a_dangling_symlink_leads_to_nothing(self, world: World) -> None:
        link = world.folder / "link"
        world.kernel.put_link(link, "nowhere", replaces=None)
        assert world.kernel.identify(link, follow=True) is None
        assert world.kernel.identify(link) is not None

    def test_a_device_has_the_size_of_the_device(self, lab: Lab) -> None:
        loop = lab.attach(lab.file("file", 2 * CHUNK))
        identity = found(lab.world, Path(loop.path))
        assert (identity.kind, identity.size) == ("device", Bytes(2 * CHUNK))


class TestFoldersAndRoom:
    def test_readable(self, world: World) -> None:
        assert world.kernel.readable(world.make_file("file", 1))
        assert not world.kernel.readable(world.folder / "missing")

    def test_names_in_a_folder_are_sorted(self, world: World) -> None:
        for name in ("b", "a", "c"):
            world.make_file(name, 0)
        assert world.kernel.list_folder(world.folder) == ("a", "b", "c")

    def test_a_missing_folder_is_empty(self, world: World) -> None:
        assert world.kernel.list_folder(world.folder / "missing") == ()

    def test_a_file_is_no_folder(self, world: World) -> None:
        with pytest.raises(PermanentError) as raised:
            world.kernel.list_folder(world.make_file("file", 0))
        assert raised.value.errno == errno.ENOTDIR

    def test_holes_take_no_room(self, world: World) -> None:
        path = world.make_file("file", MIB)
        assert world.kernel.allocated(path) == Bytes(0)
        world.write(path, 8 * CHUNK, b"x")
        assert world.kernel.allocated(path) == Bytes(CHUNK)

    def test_a_missing_file_takes_none(self, world: World) -> None:
        assert world.kernel.allocated(world.folder / "missing") == Bytes(0)

    def test_room_is_that_of_the_nearest_parent(self, small_world: World) -> None:
        room = small_world.kernel.free_space(small_world.folder)
        assert room.total == Bytes(256 * KIB)
        assert room.available <= room.total
        deep = small_world.folder / "not" / "there" / "yet"
        assert small_world.kernel.free_space(deep) == room

    def test_room_shrinks_by_what_is_written(self, small_world: World) -> None:
        path = small_world.make_file("file", MIB)
        before = small_world.kernel.free_space(path)
        small_world.write(path, 0, b"x" * 4 * CHUNK)
        after = small_world.kernel.free_space(path)
        assert before.available - after.available == Bytes(4 * CHUNK)


class TestCowHeader:
    def test_a_missing_file(self, world: World) -> None:
        assert world.kernel.cow_header(world.folder / "missing") is CowHeader.MISSING

    def test_a_folder_is_foreign(self, world: World) -> None:
        assert world.kernel.cow_header(world.folder) is CowHeader.FOREIGN

    @pytest.mark.parametrize(
        ("raw", "expected"),
        [
            (b"", CowHeader.EMPTY),
            (struct.pack("<4I", MAGIC, 1, 1, 8), CowHeader.VALID),
            (struct.pack("<4I", MAGIC, 0, 1, 8), CowHeader.INVALID),
            (struct.pack("<4I", MAGIC, 2, 1, 8), CowHeader.FOREIGN),
            (struct.pack("<4I", MAGIC, 1, 2, 8), CowHeader.FOREIGN),
            (struct.pack("<4I", MAGIC, 1, 1, 16), CowHeader.FOREIGN),
            (struct.pack("<4I", 0, 1, 1, 8), CowHeader.FOREIGN),
            (b"#!/bin/sh\necho this is no store\n", CowHeader.FOREIGN),
        ],
    )
    def test_each_kind(self, lab: Lab, raw: bytes, expected: CowHeader) -> None:
        assert lab.kernel.cow_header(lab.file("cow", MIB, raw)) is expected

    def test_a_file_without_room_for_a_header(self, lab: Lab) -> None:
        assert lab.kernel.cow_header(lab.file("empty", 0)) is CowHeader.EMPTY
        assert lab.kernel.cow_header(lab.file("short", 4, b"SnAp")) is CowHeader.FOREIGN


class TestCreateSparse:
    def test_makes_a_hole_of_this_size(self, world: World) -> None:
        path = world.folder / "cow"
        made = world.kernel.create_sparse(path, Bytes(MIB))
        assert made == found(world, path)
        assert (made.size, world.kernel.allocated(path)) == (Bytes(MIB), Bytes(0))
        assert world.kernel.cow_header(path) is CowHeader.EMPTY

    def test_makes_missing_parents(self, world: World) -> None:
        path = world.folder / "disks" / "sb-1" / "cow"
        world.kernel.create_sparse(path, Bytes(CHUNK))
        assert world.kernel.list_folder(world.folder / "disks") == ("sb-1",)

    def test_never_replaces_data(self, lab: Lab) -> None:
        path = lab.file("cow", CHUNK, b"precious")
        with pytest.raises(PermanentError) as raised:
            lab.kernel.create_sparse(path, Bytes(MIB))
        assert raised.value.errno == errno.EEXIST
        assert lab.world.read(path, 0, 8) == b"precious"
        assert found(lab.world, path).size == Bytes(CHUNK)

    def test_does_not_follow_a_dangling_symlink(self, world: World) -> None:
        link = world.folder / "cow"
        world.kernel.put_link(link, "elsewhere", replaces=None)
        with pytest.raises(PermanentError) as raised:
            world.kernel.create_sparse(link, Bytes(CHUNK))
        assert raised.value.errno == errno.EEXIST
        assert world.kernel.list_folder(world.folder) == ("cow",)

    def test_a_file_where_a_folder_should_be(self, world: World) -> None:
        world.make_file("file", 0)
        with pytest.raises(PermanentError) as raised:
            world.kernel.create_sparse(world.folder / "file" / "cow", Bytes(CHUNK))
        assert raised.value.errno == errno.ENOTDIR


class TestCloneFile:
    def test_copies_content_and_adds_zeros(self, lab: Lab) -> None:
        base = lab.file("base", 3 * CHUNK, b"begin")
        lab.world.write(base, 3 * CHUNK - 3, b"end")
        target = lab.world.folder / "deep" / "copy"
        method = lab.kernel.clone_file(base, target, Bytes(5 * CHUNK))
        assert method in set(CloneMethod)
        assert found(lab.world, target).size == Bytes(5 * CHUNK)
        assert lab.world.read(target, 0, 5) == b"begin"
        assert lab.world.read(target, 3 * CHUNK - 3, 6) == b"end\0\0\0"

    def test_the_copy_is_private(self, lab: Lab) -> None:
        base = lab.file("base", CHUNK, b"base")
        copy = lab.world.folder / "copy"
        lab.kernel.clone_file(base, copy, Bytes(CHUNK))
        lab.world.write(copy, 0, b"copy")
        assert lab.world.read(base, 0, 4) == b"base"

    def test_holes_stay_holes(self, lab: Lab) -> None:
        base = lab.file("base", MIB, b"x")
        copy = lab.world.folder / "copy"
        lab.kernel.clone_file(base, copy, Bytes(MIB))
        assert lab.kernel.allocated(copy) == Bytes(CHUNK)

    def test_follows_a_symlink_to_the_base(self, lab: Lab) -> None:
        lab.file("base", CHUNK, b"base")
        link, copy = lab.world.folder / "link", lab.world.folder / "copy"
        lab.kernel.put_link(link, "base", replaces=None)
        lab.kernel.clone_file(link, copy, Bytes(CHUNK))
        assert lab.world.read(copy, 0, 4) == b"base"

    def test_never_replaces_data(self, lab: Lab) -> None:
        base = lab.file("base", CHUNK, b"base")
        target = lab.file("copy", CHUNK, b"precious")
        with pytest.raises(PermanentError) as raised:
            lab.kernel.clone_file(base, target, Bytes(CHUNK))
        assert raised.value.errno == errno.EEXIST
        assert lab.world.read(target, 0, 8) == b"precious"

    @pytest.mark.parametrize(
        ("source", "size", "number"),
        [("base", CHUNK - 1, errno.EFBIG), ("missing", CHUNK, errno.ENOENT)],
    )
    def test_nothing_is_left_of_a_refused_copy(
        self, lab: Lab, source: str, size: int, number: int
    ) -> None:
        lab.file("base", CHUNK)
        with pytest.raises(PermanentError) as raised:
            lab.kernel.clone_file(lab.world.folder / source, lab.world.folder / "copy", Bytes(size))
        assert raised.value.errno == number
        assert lab.kernel.list_folder(lab.world.folder) == ("base",)

    def test_nothing_is_left_when_the_room_runs_out(self, small_lab: Lab) -> None:
        base = small_lab.file("base", 40 * CHUNK, b"x" * 40 * CHUNK)
        before = small_lab.kernel.free_space(base)
        with pytest.raises(BlockedError) as raised:
            small_lab.kernel.clone_file(base, small_lab.world.folder / "copy", Bytes(MIB))
        assert raised.value.errno == errno.ENOSPC
        assert small_lab.kernel.list_folder(small_lab.world.folder) == ("base",)
        assert small_lab.kernel.free_space(base) == before

    def test_one_that_is_not_durable_yet_is_whole(self, lab: Lab) -> None:
        base = lab.file("base", 3 * CHUNK, b"base")
        copy = lab.world.folder / "copy"
        lab.kernel.clone_file(base, copy, Bytes(3 * CHUNK), durable=False)
        assert (lab.world.read(copy, 0, 4), found(lab.world, copy).size) == (b"base", Bytes(12288))
        lab.kernel.sync_file(copy, found(lab.world, copy))

    def test_it_is_told_before_whether_it_would_be_a_reflink(self, lab: Lab) -> None:
        base = lab.file("base", CHUNK, b"base")
        shares = lab.kernel.shares_blocks(base)
        assert lab.kernel.list_folder(lab.world.folder) == ("base",)
        method = lab.kernel.clone_file(base, lab.world.folder / "copy", Bytes(CHUNK))
        assert shares is (method is CloneMethod.REFLINK)


class TestReplaceFile:
    def test_it_takes_the_place_of_the_other_once(self, lab: Lab) -> None:
        new, old = lab.file("new", CHUNK, b"new"), lab.file("old", CHUNK, b"old")
        expected, replaces = found(lab.world, new), found(lab.world, old)
        for changed in (True, False):
            done = lab.kernel.rename_over(new, old, expected=expected, replaces=replaces)
            assert done is changed
            assert lab.world.read(old, 0, 3) == b"new"
            assert lab.kernel.list_folder(lab.world.folder) == ("old",)
        assert found(lab.world, old).same_file(expected, same_boot=True)

    def test_it_takes_a_place_that_is_free(self, lab: Lab) -> None:
        new = lab.file("new", CHUNK, b"new")
        expected, place = found(lab.world, new), lab.world.folder / "place"
        assert lab.kernel.rename_over(new, place, expected=expected, replaces=expected)
        assert lab.world.read(place, 0, 3) == b"new"

    def test_any_other_file_in_either_place_stays(self, lab: Lab) -> None:
        new, old = lab.file("new", CHUNK, b"new"), lab.file("old", CHUNK, b"old")
        other = found(lab.world, lab.file("other", CHUNK))
        for expected, replaces in (
            (other, found(lab.world, old)),
            (found(lab.world, new), other),
        ):
            with pytest.raises(IdentityMismatch):
                lab.kernel.rename_over(new, old, expected=expected, replaces=replaces)
        assert lab.world.read(old, 0, 3) == b"old"
        assert lab.world.read(new, 0, 3) == b"new"

    def test_what_is_gone_takes_no_place(self, lab: Lab) -> None:
        old = lab.file("old", CHUNK, b"old")
        new, other = lab.world.folder / "new", found(lab.world, lab.file("other", CHUNK))
        with pytest.raises(PermanentError) as raised:
            lab.kernel.rename_over(new, old, expected=other, replaces=found(lab.world, old))
        assert raised.value.errno == errno.ENOENT


class TestRemoveFile:
    def test_once_and_not_again(self, world: World) -> None:
        path = world.make_file("file", CHUNK)
        expected = found(world, path)
        assert world.kernel.remove_file(path, expected) is True
        assert world.kernel.identify(path) is None
        assert world.kernel.remove_file(path, expected) is False

    def test_a_file_that_was_written_to_is_still_the_one(self, world: World) -> None:
        path = world.make_file("file", CHUNK)
        expected = found(world, path)
        world.write(path, 0, b"changed")
        assert world.kernel.remove_file(path, expected) is True

    def test_another_file_in_its_place_stays(self, lab: Lab) -> None:
        expected = found(lab.world, lab.file("old", CHUNK))
        path = lab.file("new", CHUNK, b"precious")
        with pytest.raises(IdentityMismatch):
            lab.kernel.remove_file(path, expected)
        assert lab.world.read(path, 0, 8) == b"precious"

    def test_a_symlink_in_its_place_stays(self, world: World) -> None:
        path = world.make_file("file", CHUNK)
        link = world.folder / "link"
        world.kernel.put_link(link, "file", replaces=None)
        with pytest.raises(IdentityMismatch):
            world.kernel.remove_file(link, found(world, path))
        assert world.kernel.list_folder(world.folder) == ("file", "link")

    def test_a_folder_that_is_gone_has_no_files(self, world: World) -> None:
        expected = found(world, world.make_file("file", CHUNK))
        assert world.kernel.remove_file(world.folder / "gone" / "file", expected) is False

    def test_a_folder_is_no_file(self, world: World) -> None:
        with pytest.raises(PermanentError):
            world.kernel.remove_file(world.folder, found(world, world.folder))
        assert world.kernel.list_folder(world.folder) == ()


class TestMoveFile:
    def test_it_is_the_same_file_under_another_name(self, world: World) -> None:
        path = world.make_file("file", CHUNK)
        world.write(path, 0, b"kept")
        expected, target = found(world, path), world.folder / "new" / "name"
        assert world.kernel.move_file(path, target, expected) is True
        assert world.kernel.identify(path) is None
        assert found(world, target).same_file(expected, same_boot=True)
        assert world.read(target, 0, 4) == b"kept"
        assert world.kernel.move_file(path, target, expected) is False

    def test_a_loop_on_it_goes_on(self, lab: Lab) -> None:
        path = lab.file("file", MIB)
        loop, target = lab.attach(path), lab.world.folder / "other"
        lab.kernel.move_file(path, target, found(lab.world, path))
        seen = lab.kernel.loop(loop.number)
        assert seen is not None
        assert (seen.backing_path, seen.backs(found(lab.world, target))) == (str(target), True)

    def test_what_is_there_stays(self, lab: Lab) -> None:
        path, target = lab.file("file", CHUNK), lab.file("other", CHUNK, b"precious")
        with pytest.raises(PermanentError) as raised:
            lab.kernel.move_file(path, target, found(lab.world, path))
        assert raised.value.errno == errno.EEXIST
        assert lab.world.read(target, 0, 8) == b"precious"
        assert lab.kernel.identify(path) is not None

    def test_another_file_in_its_place_stays(self, lab: Lab) -> None:
        expected = found(lab.world, lab.file("old", CHUNK))
        path = lab.file("new", CHUNK)
        with pytest.raises(IdentityMismatch):
            lab.kernel.move_file(path, lab.world.folder / "target", expected)
        assert lab.kernel.identify(path) is not None

    def test_what_is_gone_cannot_be_moved(self, world: World) -> None:
        path = world.make_file("file", CHUNK)
        expected = found(world, path)
        world.kernel.remove_file(path, expected)
        with pytest.raises(PermanentError) as raised:
            world.kernel.move_file(path, world.folder / "target", expected)
        assert raised.value.errno == errno.ENOENT

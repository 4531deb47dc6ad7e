"""Symlinks, device nodes and folders: only what is literally ours is changed."""

from __future__ import annotations

import errno
from pathlib import Path

import attrs
import pytest

from statemachine.errors import ForeignDevice, PermanentError
from statemachine.jail import Jail
from statemachine.observed import DeviceNumber, LinkKind, LinkObservation, NodeObservation
from tests.contract.disk import CHUNK, Lab
from tests.contract.sim_world import SimWorld
from tests.contract.world import World


def symlink(target: str) -> LinkObservation:
    return LinkObservation(kind=LinkKind.SYMLINK, target=target)


def occupy(world: World, what: str) -> Path:
    """Put something at a path."""
    path = world.folder / "link"
    if what == "file":
        world.make_file("link", CHUNK)
    elif what == "folder":
        world.kernel.make_folder(path)
    else:
        world.kernel.put_link(path, "somebody's", replaces=None)
    return path


class TestReadLink:
    def test_nothing_there(self, world: World) -> None:
        assert world.kernel.read_link(world.folder / "x") == LinkObservation(kind=LinkKind.MISSING)

    def test_missing_parents_are_named_outermost_first(self, world: World) -> None:
        seen = world.kernel.read_link(world.folder / "a" / "b" / "c")
        parents = (str(world.folder / "a"), str(world.folder / "a" / "b"))
        assert seen == LinkObservation(kind=LinkKind.MISSING, missing_parents=parents)

    def test_a_symlink_is_not_followed(self, world: World) -> None:
        path = world.folder / "link"
        world.kernel.put_link(path, "anywhere at all", replaces=None)
        assert world.kernel.read_link(path) == symlink("anywhere at all")

    @pytest.mark.parametrize("what", ["file", "folder"])
    def test_occupied(self, world: World, what: str) -> None:
        assert world.kernel.read_link(occupy(world, what)).kind is LinkKind.OCCUPIED

    def test_a_file_in_the_way(self, world: World) -> None:
        path = world.make_file("file", 0) / "link"
        assert world.kernel.read_link(path).kind is LinkKind.OCCUPIED

    def test_a_device_node_has_its_number(self, lab: Lab) -> None:
        loop = lab.attach(lab.file("file", CHUNK))
        expected = LinkObservation(kind=LinkKind.DEVICE, target=f"7:{loop.number}")
        assert lab.kernel.read_link(Path(loop.path)) == expected


class TestPutLink:
    def test_makes_it_once(self, world: World) -> None:
        path = world.folder / "link"
        assert world.kernel.put_link(path, "../dm-3", replaces=None) is True
        assert world.kernel.put_link(path, "../dm-3", replaces=None) is False
        assert world.kernel.read_link(path) == symlink("../dm-3")

    def test_replaces_what_it_was_told_to(self, world: World) -> None:
        path = world.folder / "link"
        world.kernel.put_link(path, "../dm-3", replaces=None)
        assert world.kernel.put_link(path, "../dm-4", replaces="../dm-3") is True
        assert world.kernel.read_link(path) == symlink("../dm-4")
        assert world.kernel.put_link(path, "../dm-4", replaces="../dm-3") is False
        assert world.kernel.list_folder(world.folder) == ("link",)

    def test_what_shall_be_replaced_may_be_missing(self, world: World) -> None:
        path = world.folder / "link"
        assert world.kernel.put_link(path, "../dm-4", replaces="../dm-3") is True
        assert world.kernel.read_link(path) == symlink("../dm-4")

    @pytest.mark.parametrize("what", ["file", "folder", "link"])
    @pytest.mark.parametrize("replaces", [None, "../dm-3"])
    def test_anything_else_stays(self, world: World, what: str, replaces: str | None) -> None:
        path = occupy(world, what)
        before = world.kernel.read_link(path), world.kernel.identify(path)
        with pytest.raises(ForeignDevice):
            world.kernel.put_link(path, "../dm-4", replaces=replaces)
        assert (world.kernel.read_link(path), world.kernel.identify(path)) == before

    def test_needs_its_parent(self, world: World) -> None:
        with pytest.raises(PermanentError) as raised:
            world.kernel.put_link(world.folder / "missing" / "link", "x", replaces=None)
        assert raised.value.errno == errno.ENOENT

    def test_leads_to_the_device(self, lab: Lab) -> None:
        disk = lab.disk(content=b"data").up()
        mapper = Path("/dev/mapper") / disk.name
        lab.kernel.put_link(mapper, f"../{disk.node.name}", replaces=None)
        stable = lab.world.folder / "rootfs"
        lab.kernel.put_link(stable, str(mapper), replaces=None)
        assert lab.kernel.read_link(mapper) == symlink(f"../{disk.node.name}")
        assert lab.world.read(stable, 0, 4) == b"data"
        handle = lab.world.open(stable)
        assert disk.observed.open_count >= 1
        handle.close()


class TestDropLink:
    def test_once_and_not_again(self, world: World) -> None:
        path = world.folder / "link"
        world.kernel.put_link(path, "../dm-3", replaces=None)
        assert world.kernel.drop_link(path, "../dm-3") is True
        assert world.kernel.read_link(path).kind is LinkKind.MISSING
        assert world.kernel.drop_link(path, "../dm-3") is False

    def test_without_a_folder_there_is_none(self, world: World) -> None:
        assert world.kernel.drop_link(world.folder / "missing" / "link", "x") is False

    @pytest.mark.parametrize("what", ["file", "folder", "link"])
    def test_anything_else_stays(self, world: World, what: str) -> None:
        path = occupy(world, what)
        before = world.kernel.read_link(path)
        with pytest.raises(ForeignDevice):
            world.kernel.drop_link(path, "../dm-3")
        assert world.kernel.read_link(path) == before


class TestNodes:
    def test_a_node_is_made_once(self, world: World) -> None:
        path = world.folder / "node"
        device = DeviceNumber(253, 77)
        assert world.kernel.ensure_node(device, path) is True
        assert world.kernel.ensure_node(device, path) is False
        seen = world.kernel.read_link(path)
        assert (seen.kind, seen.target) == (LinkKind.DEVICE, "253:77")

    def test_a_node_leads_to_the_device(self, lab: Lab) -> None:
        disk = lab.disk(content=b"data").up()
        jail = lab.world.folder / "rootfs.ext4"
        lab.kernel.ensure_node(disk.observed.device, jail)
        identity = lab.kernel.identify(jail)
        assert identity is not None
        assert (identity.kind, identity.size) == ("device", disk.length.to_bytes())

    def test_a_node_of_another_number_stays(self, world: World) -> None:
        path = world.folder / "node"
        world.kernel.ensure_node(DeviceNumber(253, 77), path)
        with pytest.raises(ForeignDevice):
            world.kernel.ensure_node(DeviceNumber(253, 78), path)
        assert world.kernel.read_link(path).target == "253:77"

    @pytest.mark.parametrize("what", ["file", "folder", "link"])
    def test_anything_else_stays(self, world: World, what: str) -> None:
        path = occupy(world, what)
        before = world.kernel.read_link(path)
        with pytest.raises(ForeignDevice):
            world.kernel.ensure_node(DeviceNumber(253, 77), path)
        assert world.kernel.read_link(path) == before

    def test_the_kernels_own_node_is_there(self, lab: Lab) -> None:
        disk = lab.disk().up()
        assert lab.kernel.ensure_node(disk.observed.device, disk.node) is False

    def test_a_node_can_be_removed_by_its_identity(self, world: World) -> None:
        path = world.folder / "node"
        world.kernel.ensure_node(DeviceNumber(253, 77), path)
        identity = world.kernel.identify(path)
        assert identity is not None
        assert world.kernel.remove_file(path, identity) is True


SEVEN, EIGHT = DeviceNumber(253, 77), DeviceNumber(253, 78)


def jail_of(world: World, uid: int = 1001) -> Jail:
    return Jail(root=world.folder, node=Path("link"), uid=uid, gid=1002)


def seen_at(world: World, jail: Jail) -> NodeObservation:
    """Look without a word of the mount: the real world's may be nodev."""
    return attrs.evolve(world.kernel.look_at_node(jail), flaw="")


class TestJailNodes:
    @pytest.fixture(autouse=True)
    def open_folder(self, world: World) -> None:
        if not isinstance(world, SimWorld):
            world.folder.chmod(0o755)  # the jail's user must be able to search it

    def test_made_once_for_its_user(self, world: World) -> None:
        jail = jail_of(world)
        assert world.kernel.put_node(jail, SEVEN, replaces=None) is True
        assert world.kernel.put_node(jail, SEVEN, replaces=None) is False
        expected = NodeObservation(
            kind=LinkKind.DEVICE, number="253:77", uid=1001, gid=1002, mode=0o600
        )
        assert seen_at(world, jail) == expected
        assert world.kernel.list_folder(world.folder) == ("link",)

    def test_leads_elsewhere_when_told_to(self, world: World) -> None:
        jail = jail_of(world)
        world.kernel.put_node(jail, SEVEN, replaces=None)
        assert world.kernel.put_node(jail, EIGHT, replaces=SEVEN) is True
        assert world.kernel.look_at_node(jail).number == "253:78"
        assert world.kernel.list_folder(world.folder) == ("link",)

    def test_gets_another_owner(self, world: World) -> None:
        world.kernel.put_node(jail_of(world), SEVEN, replaces=None)
        other = jail_of(world, uid=1003)
        assert world.kernel.put_node(other, SEVEN, replaces=None) is True
        assert world.kernel.look_at_node(other).uid == 1003

    def test_a_node_of_another_number_stays(self, world: World) -> None:
        jail = jail_of(world)
        world.kernel.put_node(jail, SEVEN, replaces=None)
        with pytest.raises(ForeignDevice):
            world.kernel.put_node(jail, EIGHT, replaces=DeviceNumber(253, 79))
        with pytest.raises(ForeignDevice):
            world.kernel.drop_node(jail.path, EIGHT)
        assert world.kernel.look_at_node(jail).number == "253:77"

    @pytest.mark.parametrize("what", ["file", "folder", "link"])
    def test_anything_else_stays(self, world: World, what: str) -> None:
        path = occupy(world, what)
        before = world.kernel.read_link(path), world.kernel.identify(path)
        with pytest.raises(ForeignDevice):
            world.kernel.put_node(jail_of(world), SEVEN, replaces=SEVEN)
        with pytest.raises(ForeignDevice):
            world.kernel.drop_node(path, SEVEN)
        assert (world.kernel.read_link(path), world.kernel.identify(path)) == before

    def test_dropped_once(self, world: World) -> None:
        jail = jail_of(world)
        world.kernel.put_node(jail, SEVEN, replaces=None)
        assert world.kernel.drop_node(jail.path, SEVEN) is True
        assert world.kernel.drop_node(jail.path, SEVEN) is False
        assert world.kernel.look_at_node(jail).kind is LinkKind.MISSING

    def test_without_a_folder_there_is_none(self, world: World) -> None:
        jail = Jail(root=world.folder / "a", node=Path("b/node"), uid=1001, gid=1002)
        missing = (str(jail.root), str(jail.root / "b"))
        seen = NodeObservation(kind=LinkKind.MISSING, missing_parents=missing)
        assert seen_at(world, jail) == seen
        assert world.kernel.drop_node(jail.path, SEVEN) is False
        with pytest.raises(PermanentError) as raised:
            world.kernel.put_node(jail, SEVEN, replaces=None)
        assert raised.value.errno == errno.ENOENT

    def test_a_file_on_the_way(self, world: World) -> None:
        root = world.make_file("file", 0)
        jail = Jail(root=root, node=Path("node"), uid=1001, gid=1002)
        assert world.kernel.look_at_node(jail).kind is LinkKind.OCCUPIED
        with pytest.raises(ForeignDevice):
            world.kernel.put_node(jail, SEVEN, replaces=None)
        with pytest.raises(ForeignDevice):
            world.kernel.drop_node(jail.path, SEVEN)


class TestFolders:
    def test_made_once(self, world: World) -> None:
        path = world.folder / "jail"
        assert world.kernel.make_folder(path) is True
        assert world.kernel.make_folder(path) is False

    def test_one_at_a_time(self, world: World) -> None:
        with pytest.raises(PermanentError) as raised:
            world.kernel.make_folder(world.folder / "a" / "b")
        assert raised.value.errno == errno.ENOENT

    def test_a_file_in_its_place(self, world: World) -> None:
        with pytest.raises(PermanentError) as raised:
            world.kernel.make_folder(world.make_file("file", 0))
        assert raised.value.errno == errno.EEXIST

    def test_removed_when_empty(self, world: World) -> None:
        path = world.folder / "jail"
        world.kernel.make_folder(path)
        world.make_file("jail/file", 0)
        assert world.kernel.remove_folder(path) is False
        assert world.kernel.list_folder(path) == ("file",)
        file = world.kernel.identify(path / "file")
        assert file is not None
        world.kernel.remove_file(path / "file", file)
        assert world.kernel.remove_folder(path) is True
        assert world.kernel.remove_folder(path) is False

    def test_a_file_is_no_folder(self, world: World) -> None:
        path = world.make_file("file", 0)
        with pytest.raises(PermanentError) as raised:
            world.kernel.remove_folder(path)
        assert raised.value.errno == errno.ENOTDIR
        assert world.kernel.list_folder(world.folder) == ("file",)

"""SimKernel as a host: reboots, udev, hands of others, no privileges."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from reconciler.clock import FakeClock
from reconciler.kernel.port import CloneMethod
from reconciler.kernel.sim import SimKernel
from statemachine.errors import PermanentError, TransientError
from statemachine.observed import LinkKind
from statemachine.units import Bytes
from tests.unit.simdisk import CHUNK, UUID, attach, disk


@pytest.fixture
def sim() -> SimKernel:
    return SimKernel()


class TestReboot:
    def test_devices_go_and_files_stay(self, sim: SimKernel) -> None:
        node = disk(sim)
        sim.write(node, 0, b"kept")
        handle = sim.open(node)
        before = sim.boot_id()
        sim.reboot()
        handle.close()
        assert sim.boot_id() != before
        assert (sim.dm_names(), sim.loops()) == ((), ())
        assert sim.identify(node) is None
        assert sim.read(disk(sim), 0, 4) == b"kept"

    def test_a_power_cut_loses_what_was_not_synced(self, sim: SimKernel) -> None:
        sim.make_file("/a", CHUNK, b"old")
        sim.write("/a", 0, b"new")
        sim.put_link(Path("/link"), "a", replaces=None)
        sim.reboot(lose_unsynced=True)
        assert sim.read("/a", 0, 3) == b"old"
        assert sim.read_link(Path("/link")).kind is LinkKind.MISSING

    def test_a_power_cut_keeps_what_was(self, sim: SimKernel) -> None:
        sim.write(sim.make_file("/a", CHUNK, b"old"), 0, b"new")
        sim.put_link(Path("/link"), "a", replaces=None)
        sim.create_sparse(Path("/deep/cow"), Bytes(CHUNK))
        sim.sync()
        sim.reboot(lose_unsynced=True)
        assert sim.read("/link", 0, 3) == b"new"
        assert sim.list_folder(Path("/deep")) == ("cow",)

    def test_a_power_cut_keeps_the_exceptions_that_were_committed(self, sim: SimKernel) -> None:
        node = disk(sim)
        sim.write(node, 0, b"committed")
        sim.write(node, 0, b"in flight")
        sim.reboot(lose_unsynced=True)
        assert sim.read(disk(sim), 0, 9) == b"committed"

    def test_room_is_given_back(self, sim: SimKernel) -> None:
        path = sim.make_file("/a", CHUNK, b"x" * CHUNK)
        room = sim.free_space(path).available
        attach(sim, path)
        held = sim.open(path)
        sim.delete(path)
        assert sim.free_space(path).available == room
        sim.reboot()
        held.close()
        assert sim.free_space(path).available == room + Bytes(CHUNK)

    def test_file_systems_may_be_renumbered(self, sim: SimKernel) -> None:
        before = sim.identify(sim.make_file("/a", CHUNK))
        sim.reboot(renumber=True)
        after = sim.identify(Path("/a"))
        assert before is not None
        assert after is not None
        assert before.same_content(after, same_boot=False)
        assert not before.same_file(after, same_boot=True)


class TestUdev:
    def test_it_holds_a_new_device_for_some_calls(self, sim: SimKernel) -> None:
        sim.host.udev_hold_calls = 2
        disk(sim)
        for _ in range(2):
            with pytest.raises(TransientError):
                sim.dm_remove("sb-1", UUID)
        assert sim.dm_remove("sb-1", UUID) is True

    def test_or_for_some_seconds(self) -> None:
        clock = FakeClock()
        sim = SimKernel(clock)
        sim.host.udev_hold_s = 0.5
        disk(sim)
        found = sim.dm("sb-1")
        assert found is not None
        assert found.open_count == 1
        clock.advance_s(0.5)
        assert sim.dm_remove("sb-1", UUID) is True

    def test_it_makes_links_only_where_it_runs(self, sim: SimKernel) -> None:
        link = Path("/dev/mapper/sb-1")
        disk(sim)
        assert sim.read_link(link).kind is LinkKind.MISSING
        sim.remove_dm_by_hand("sb-1")
        sim.host.udev_links = True
        sim.reboot()
        disk(sim)
        assert sim.read_link(link).target == "../dm-0"
        sim.dm_remove("sb-1", UUID)
        assert sim.read_link(link).kind is LinkKind.MISSING

    def test_without_devtmpfs_nodes_must_be_made(self, sim: SimKernel) -> None:
        sim.host.devtmpfs = False
        node = disk(sim)
        assert sim.identify(node) is None
        found = sim.dm("sb-1")
        assert found is not None
        assert sim.ensure_node(found.device, node) is True
        assert sim.read(node, 0, 4) == b"base"


class TestHands:
    def test_wake_ups_name_the_device(self, sim: SimKernel) -> None:
        woken: list[str] = []
        end = sim.subscribe(woken.append)
        disk(sim)
        assert woken == ["loop0", "loop1", "dm-0", "dm-0"]
        end()
        sim.remove_dm_by_hand("sb-1")
        assert len(woken) == 4

    def test_a_listener_may_ask(self, sim: SimKernel) -> None:
        seen: list[int] = []
        sim.subscribe(lambda _: seen.append(len(sim.loops())))
        attach(sim, sim.make_file("/a", CHUNK))
        assert seen == [1]

    def test_strangers_are_only_seen(self, sim: SimKernel) -> None:
        sim.add_foreign_dm("vg-root", uuid="LVM-abc")
        number = sim.add_foreign_loop(sim.make_file("/iso", CHUNK))
        assert [line.uuid for line in sim.dm_names()] == ["LVM-abc"]
        assert [loop.number for loop in sim.loops()] == [number]
        assert sim.read("/dev/mapper/vg-root", 0, 2) == b"\0\0"
        found = sim.dm("vg-root")
        assert found is not None
        assert (found.live, found.table) == (True, None)

    def test_a_suspended_device_blocks_its_readers(self, sim: SimKernel) -> None:
        node = disk(sim)
        sim.suspend_dm_by_hand("sb-1")
        with pytest.raises(BlockingIOError):
            sim.read(node, 0, 1)

    def test_a_replaced_file_is_another_one(self, sim: SimKernel) -> None:
        before = sim.identify(sim.make_file("/a", CHUNK))
        sim.replace_file("/a", CHUNK)
        after = sim.identify(Path("/a"))
        assert before is not None
        assert after is not None
        assert not before.same_file(after, same_boot=True)

    def test_unless_the_file_system_reuses_inodes(self) -> None:
        sim = SimKernel(reuse_inodes=True)
        before = sim.identify(sim.make_file("/a", CHUNK))
        sim.replace_file("/a", CHUNK)
        after = sim.identify(Path("/a"))
        assert before is not None
        assert after is not None
        assert before.same_file(after, same_boot=True)
        assert not before.same_content(after, same_boot=True)

    @pytest.mark.parametrize(
        ("reflink", "method", "pages"),
        [(True, CloneMethod.REFLINK, 0), (False, CloneMethod.SPARSE_COPY, 1)],
    )
    def test_a_reflink_takes_room_only_once_written(
        self,
        sim: SimKernel,
        reflink: bool,  # noqa: FBT001
        method: CloneMethod,
        pages: int,
    ) -> None:
        where = sim.mount("/fs", Bytes(8 * CHUNK), reflink=reflink)
        base = sim.make_file(where / "base", CHUNK, b"x")
        room = sim.free_space(where).available
        assert sim.clone_file(base, where / "copy", Bytes(CHUNK)) is method
        assert room - sim.free_space(where).available == Bytes(pages * CHUNK)
        sim.write(where / "copy", 0, b"y")
        assert room - sim.free_space(where).available == Bytes(CHUNK)
        sim.delete(where / "copy")
        assert sim.free_space(where).available == room

    def test_room_can_run_out_and_come_back(self, sim: SimKernel) -> None:
        where = sim.mount("/small", Bytes(CHUNK))
        path = sim.make_file(where / "a", 2 * CHUNK, b"x")
        with pytest.raises(OSError, match="No space"):
            sim.write(path, CHUNK, b"x")
        sim.set_capacity(where, Bytes(2 * CHUNK))
        sim.write(path, CHUNK, b"x")


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        ["/srv/base", "//srv//base", "/srv/./base", "/srv/base/.", "/srv/x/../base", "/l/base"],
    )
    def test_one_file_is_found_by_each_way_to_it(self, sim: SimKernel, path: str) -> None:
        sim.make_file("/srv/base", 4096, b"mine")
        sim.make_file("/srv/x/other", 4096)
        sim.put_link(Path("/l"), "srv", replaces=None)
        assert sim.read(path, 0, 4) == b"mine"

    @pytest.mark.parametrize("path", ["/srv", "/srv/", "/srv/.", "/srv/x/..", "/l", "/../srv"])
    def test_a_folder_that_is_there_is_not_made_anew(self, sim: SimKernel, path: str) -> None:
        sim.make_file("/srv/x/base", 4096)
        sim.put_link(Path("/l"), "/srv", replaces=None)
        before = sim.identify(Path("/srv"))
        sim.make_folder_by_hand(path)
        assert (sim.identify(Path("/srv")), sim.names_in("/srv")) == (before, ("x",))
        assert sim.host.tree.get(path) is sim.host.tree.get("/srv")

    @pytest.mark.parametrize("page", [b"", b"x", bytes(4096), b"x".rjust(4096, b"\0"), b"ab\0c"])
    def test_zeros_at_the_end_of_a_page_are_read_back(self, sim: SimKernel, page: bytes) -> None:
        sim.make_file("/file", 8192, b"y" * 8192)
        sim.write("/file", 0, page.ljust(4096, b"\0"))
        assert sim.read("/file", 0, 8192) == page.ljust(4096, b"\0") + b"y" * 4096


class TestPrivileges:
    @pytest.mark.parametrize("number", [errno.ENODEV, errno.EACCES])
    def test_without_device_mapper(self, sim: SimKernel, number: int) -> None:
        sim.host.dm_errno = number
        assert sim.capabilities().dm
        assert sim.capabilities().loop == ""
        with pytest.raises(PermanentError) as raised:
            sim.dm_create("sb-1", UUID)
        assert raised.value.errno == number

    def test_a_kernel_without_it_has_no_devices(self, sim: SimKernel) -> None:
        sim.host.dm_errno = errno.ENODEV
        assert sim.dm_names() == ()
        assert sim.dm("sb-1") is None

    def test_who_may_not_ask_is_told_so(self, sim: SimKernel) -> None:
        sim.host.dm_errno = errno.EACCES
        for ask in (sim.dm_names, lambda: sim.dm("sb-1")):
            with pytest.raises(PermanentError):
                ask()

    def test_without_loops(self, sim: SimKernel) -> None:
        sim.host.loop_errno = errno.EACCES
        assert sim.capabilities().loop
        with pytest.raises(PermanentError):
            attach(sim, sim.make_file("/a", CHUNK))
        assert sim.loops() == ()

    def test_an_unreadable_file(self, sim: SimKernel) -> None:
        path = sim.make_file("/a", CHUNK)
        sim.set_readable(path, readable=False)
        assert not sim.readable(path)
        with pytest.raises(PermanentError):
            sim.cow_header(path)
        assert sim.identify(path) is not None

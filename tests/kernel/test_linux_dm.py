"""LinuxKernel on a real device-mapper: what the contract suite cannot ask of a simulation."""

import select
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from reconciler.kernel.dm import EventPoll
from reconciler.kernel.linux import LinuxKernel
from reconciler.kernel.port import CowHeader
from statemachine.errors import ForeignDevice, IdentityMismatch, PermanentError, TransientError
from statemachine.observed import DmDevice, Loop, SnapshotHealth, SnapshotTable
from statemachine.units import Bytes, Sectors
from tests.contract.real_world import RealWorld, patiently

pytestmark = pytest.mark.kernel

ORIGIN = Bytes(16 << 20)
COW = Bytes((16 << 20) + (16 << 20) // 256 + 8192)
LIVES = 50


@attrs.frozen(kw_only=True)
class Snapshot:
    name: str
    uuid: str
    cow: Path
    cow_loop: Loop
    table: SnapshotTable


class Bench:
    """One base and the snapshots that a test builds on it."""

    def __init__(self, world: RealWorld) -> None:
        self.world = world
        self.kernel: LinuxKernel = world.kernel
        self.base = world.make_file("base", ORIGIN.count)
        self.base_loop = self._attach(self.base, "BYRE-base-0123456789abcdef", read_only=True)

    def half_made(self, name: str, cow_size: Bytes = COW) -> Snapshot:
        """Make everything up to the dm device without a table."""
        cow = self.world.make_file(f"cow-{name}", cow_size.count)
        dm_uuid = f"BYRE-{uuid.uuid4().hex}-1"
        cow_loop = self._attach(cow, dm_uuid, read_only=False)
        self.kernel.dm_create(self.world.prefix + name, dm_uuid)
        table = SnapshotTable(
            length=ORIGIN.sectors_exact(), origin=self.base_loop.device, cow=cow_loop.device
        )
        return Snapshot(
            name=self.world.prefix + name, uuid=dm_uuid, cow=cow, cow_loop=cow_loop, table=table
        )

    def live(self, name: str, cow_size: Bytes = COW) -> Snapshot:
        made = self.half_made(name, cow_size)
        self.kernel.dm_load(made.uuid, made.table)
        assert self.kernel.dm_resume(made.uuid) is True
        return made

    def look(self, made: Snapshot) -> DmDevice:
        found = self.kernel.dm(made.name)
        assert found is not None
        return found

    def remove(self, made: Snapshot) -> None:
        assert patiently(lambda: self.kernel.dm_remove(made.name, made.uuid)) is True

    def _attach(self, path: Path, marker: str, *, read_only: bool) -> Loop:
        identity = self.kernel.identify(path)
        assert identity is not None
        return self.kernel.loop_attach(path, identity, marker=marker, read_only=read_only)


@pytest.fixture
def bench() -> Iterator[Bench]:
    world = RealWorld()
    try:
        yield Bench(world)
    finally:
        world.cleanup()


def test_everything_needed_is_there(bench: Bench) -> None:
    assert (bench.kernel.capabilities().dm, bench.kernel.capabilities().loop) == ("", "")


def test_a_half_made_device_is_seen_as_one_and_cannot_be_resumed(bench: Bench) -> None:
    made = bench.half_made("half")
    found = bench.look(made)
    assert (found.live, found.table, found.status, found.uuid) == (False, None, None, made.uuid)
    with pytest.raises(PermanentError) as caught:
        bench.kernel.dm_resume(made.uuid)
    assert caught.value.kind == "einval"
    bench.kernel.dm_load(made.uuid, made.table)
    assert bench.look(made).live is False
    assert bench.kernel.dm_resume(made.uuid) is True
    assert bench.look(made).live is True


def test_a_name_and_a_uuid_can_be_taken_once(bench: Bench) -> None:
    made = bench.half_made("once")
    other = f"BYRE-{uuid.uuid4().hex}-1"
    for name, dm_uuid in ((made.name, other), (bench.world.prefix + "other", made.uuid)):
        with pytest.raises(TransientError) as caught:
            bench.kernel.dm_create(name, dm_uuid)
        assert caught.value.kind == "ebusy"


def test_a_fresh_snapshot_reads_as_its_base_and_keeps_what_is_written(bench: Bench) -> None:
    bench.world.write(bench.base, 4096, b"base")
    made = bench.live("data")
    node = Path(bench.look(made).node)
    assert bench.world.read(node, 4096, 4) == b"base"
    bench.world.write(node, 4096, b"mine" + bytes(4092))
    assert bench.world.read(node, 4096, 4) == b"mine"
    assert bench.world.read(bench.base, 4096, 4) == b"base"
    status = bench.look(made).status
    assert status is not None
    assert (status.health, status.used) == (SnapshotHealth.VALID, Sectors(24))
    assert bench.kernel.cow_header(made.cow) is CowHeader.VALID


def test_a_full_exception_store_is_invalid_for_ever(bench: Bench) -> None:
    made = bench.live("full", Bytes(64 << 10))
    with pytest.raises(OSError, match="Input/output error"):
        bench.world.write(Path(bench.look(made).node), 0, b"x" * (1 << 20))
    status = bench.look(made).status
    assert status is not None
    assert status.health is SnapshotHealth.INVALID
    bench.remove(made)
    assert bench.kernel.cow_header(made.cow) is CowHeader.INVALID


def test_suspending_and_resuming_say_what_they_changed(bench: Bench) -> None:
    made = bench.live("suspend")
    assert bench.kernel.dm_resume(made.uuid) is False
    assert bench.kernel.dm_suspend(made.uuid) is True
    assert bench.kernel.dm_suspend(made.uuid) is False
    assert bench.look(made).suspended is True
    assert bench.kernel.dm_resume(made.uuid) is True


def test_a_mounted_device_is_busy_within_a_bound_and_its_mount_is_named(bench: Bench) -> None:
    made = bench.live("mounted")
    node = bench.look(made).node
    subprocess.run(["mkfs.ext4", "-q", "-F", node], check=True)
    mount = bench.world.folder / "mnt"
    mount.mkdir()
    subprocess.run(["mount", node, mount], check=True)
    try:
        began = time.monotonic()
        with pytest.raises(TransientError) as caught:
            bench.kernel.dm_remove(made.name, made.uuid)
        assert (caught.value.kind, time.monotonic() - began < 1) == ("ebusy", True)
        holders = bench.kernel.holders(bench.look(made).device)
        assert [str(holder) for holder in holders] == [f"mount {mount}"]
    finally:
        subprocess.run(["umount", mount], check=True)
    bench.remove(made)


def test_a_loop_under_a_device_is_busy_at_once_and_names_the_device(bench: Bench) -> None:
    made = bench.live("under")
    with pytest.raises(TransientError) as caught:
        bench.kernel.loop_detach(made.cow_loop)
    assert caught.value.kind == "ebusy"
    assert bench.kernel.loop(made.cow_loop.number) == made.cow_loop
    holders = bench.kernel.holders(made.cow_loop.device)
    assert f"dm {made.name}" in [str(holder) for holder in holders]


def test_removing_a_device_takes_its_loop_with_autoclear_along(bench: Bench) -> None:
    made = bench.live("autoclear")
    assert bench.kernel.loop_set_autoclear(made.cow_loop) is True
    assert bench.kernel.loop_set_autoclear(made.cow_loop) is False
    bench.remove(made)
    deadline = time.monotonic() + 10  # udev may be the last opener
    while bench.kernel.loop(made.cow_loop.number) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert bench.kernel.loop(made.cow_loop.number) is None
    assert bench.kernel.loop_detach(made.cow_loop) is False


def test_a_device_with_another_uuid_is_not_removed(bench: Bench) -> None:
    made = bench.live("other")
    with pytest.raises(IdentityMismatch):
        bench.kernel.dm_remove(made.name, f"BYRE-{uuid.uuid4().hex}-1")
    assert bench.look(made).live is True


def test_a_foreign_device_under_our_name_is_seen_and_not_removed(bench: Bench) -> None:
    name = bench.world.prefix + "foreign"
    table = f"0 2048 linear {bench.base_loop.device} 0"
    subprocess.run(["dmsetup", "create", name, "--readonly", "--table", table], check=True)
    found = bench.kernel.dm(name)
    assert found is not None
    assert (found.uuid, found.live, found.table, found.status) == ("", True, None, None)
    with pytest.raises(ForeignDevice):
        bench.kernel.dm_remove(name, f"BYRE-{uuid.uuid4().hex}-1")
    assert bench.kernel.dm(name) is not None


def test_a_list_longer_than_the_first_buffer_is_whole(bench: Bench) -> None:
    made = {f"{bench.world.prefix}{i}": f"BYRE-{uuid.uuid4().hex}-1" for i in range(150)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(bench.kernel.dm_create, made.keys(), made.values()))
    listed = {line.name: line.uuid for line in bench.kernel.dm_names()}
    assert made.items() <= listed.items()


def test_an_event_wakes_the_poll_once(bench: Bench) -> None:
    with EventPoll(Path("/dev/mapper/control")) as poll:
        poll.arm()
        assert select.select([poll], [], [], 0)[0] == []
        bench.half_made("event")
        assert select.select([poll], [], [], 5)[0] == [poll]
        poll.arm()
        assert select.select([poll], [], [], 0)[0] == []


def test_fifty_lives_in_a_row_with_udev_alive(bench: Bench) -> None:
    for life in range(LIVES):
        made = bench.live(f"life-{life}")
        bench.world.write(Path(bench.look(made).node), 0, b"x" * 4096)
        bench.remove(made)
        assert patiently(lambda loop=made.cow_loop: bench.kernel.loop_detach(loop)) is True  # type: ignore[misc]
        assert bench.kernel.dm_remove(made.name, made.uuid) is False
    assert [line.name for line in bench.kernel.dm_names()] == []

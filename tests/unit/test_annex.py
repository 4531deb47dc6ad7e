"""Taking over: what wrenn, arcbox and ignite made becomes byre's under its users, or is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from reconciler.adoption import Word
from reconciler.annex import Taker
from reconciler.foreign import Find
from reconciler.kernel.sim import SimCrash
from reconciler.kernel.sim.faults import When
from reconciler.orphans import OrphanKind, survey
from reconciler.peers import ARCBOX, IGNITE, PEERS, WRENN, Peer
from statemachine.errors import IdentityMismatch, RefusedError, UsageError
from statemachine.fileidentity import FileIdentity
from statemachine.machine import State, Trigger
from statemachine.observed import Holder
from tests.unit.builders import BASE, MIB, Stage
from tests.unit.strays import add_foreign_snapshot, add_loop, add_store

COWS = {
    "wrenn": "/var/lib/wrenn/sandboxes/{}/rootfs.cow",
    "arcbox": "/var/lib/firecracker-vmm/cow/arcbox-cow-{}.img",
    "ignite": "/var/lib/firecracker/vm/{}/overlay.dm",
}
DEVICES = {"wrenn": "wrenn-{}", "arcbox": "arcbox-snap-{}", "ignite": "ignite-{}"}
KEPT = b"written before it was byre's"


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def nobody(_file: FileIdentity) -> tuple[Holder, ...]:
    return ()


def add(stage: Stage, peer: Peer, id_: str = "sb-7") -> str:
    """Make a live disk as the program does; returns its device's name."""
    name = DEVICES[peer.name].format(id_)
    add_foreign_snapshot(stage.kernel, name, Path(COWS[peer.name].format(id_)))
    return name


def taker(stage: Stage, peer: Peer = WRENN, **word: str) -> Taker:
    return Taker(stage.byre, peer, word=Word(**word), file_users=nobody, reason="a test")


def look(stage: Stage, peer: Peer = WRENN, **word: str) -> Find:
    [found] = taker(stage, peer, **word).look()
    return found


def took(stage: Stage, peer: Peer = WRENN) -> str:
    name = taker(stage, peer).take(look(stage, peer))
    stage.settle()
    return name


# --- what is found -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PEERS)
def test_a_live_disk_is_found_by_what_its_program_calls_it(stage: Stage, name: str) -> None:
    peer = PEERS[name]
    device = add(stage, peer)
    events = stage.byre.log.last_seq()
    found = look(stage, peer)
    assert (found.kind, found.name, found.id, found.disk) == (OrphanKind.DM, device, "sb-7", "sb-7")
    assert (found.cow, found.base) == (COWS[name].format("sb-7"), str(BASE))
    assert (found.table, found.open_count, found.flaw) == ("P 8", 0, "")
    assert events == stage.byre.log.last_seq()


def test_each_program_has_its_own(stage: Stage) -> None:
    names = [add(stage, peer) for peer in PEERS.values()]
    assert names == [look(stage, peer).name for peer in PEERS.values()]


def test_the_older_place_of_wrenns_files_is_known(stage: Stage) -> None:
    path = Path("/var/lib/wrenn/sandboxes/old-1.cow")
    add_foreign_snapshot(stage.kernel, "wrenn-old-1", path)
    assert look(stage).cow == str(path)


def test_a_file_at_rest_and_a_leaked_loop_are_found(stage: Stage) -> None:
    path = stage.kernel.make_file(COWS["arcbox"].format("a"), MIB)
    found = look(stage, ARCBOX)
    assert (found.kind, found.cow, found.id) == (OrphanKind.FILE, str(path), "a")
    assert "no valid exception store" in found.flaw
    loop = add_loop(stage, path, "")
    found = look(stage, ARCBOX)
    assert (found.kind, found.name) == (OrphanKind.LOOP, loop.path)
    assert f"losetup -d {loop.path}" in found.advice


def test_another_folder_can_be_said(stage: Stage) -> None:
    path = stage.kernel.make_file("/data/wrenn/sandboxes/x/rootfs.cow", MIB)
    [found] = Taker(stage.byre, WRENN, folder=Path("/data/wrenn")).look()
    assert found.cow == str(path)


def test_one_of_several_can_be_named_by_its_device_or_its_id(stage: Stage) -> None:
    for id_ in ("a", "b"):
        add(stage, WRENN, id_)
    for name in ("b", "wrenn-b"):
        assert [each.name for each in taker(stage).look([name])] == ["wrenn-b"]
    with pytest.raises(UsageError, match="no c; there is wrenn-a, wrenn-b"):
        taker(stage).look(["c"])
    with pytest.raises(UsageError, match="is for one disk"):
        taker(stage, name="x").look()


# --- what is taken -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PEERS)
def test_it_becomes_a_disk_under_its_user(stage: Stage, name: str) -> None:
    peer = PEERS[name]
    device = add(stage, peer)
    node = f"/dev/mapper/{device}"
    kernel = stage.kernel
    kernel.write(node, 4096, KEPT)
    before = kernel.dm(device)
    calls = len(kernel.trace)
    with kernel.open(node, write=True):
        assert took(stage, peer) == "sb-7"
        kernel.write(node, 8192, b"and while it was")
    done = {call.name for call in kernel.trace[calls:]}
    assert set() == done & {"dm_remove", "dm_suspend", "dm_load", "loop_detach", "remove_file"}
    after, record = kernel.dm(device), stage.record("sb-7")
    assert before is not None
    assert after is not None
    assert (before.device, before.table) == (after.device, after.table)
    assert after.uuid == f"BYRE-{record.id}-1"
    assert (record.state, record.device) == (State.RESTORED, node)
    assert record.cow_path == str(stage.byre.root.cow(record.id, 1, "cow"))
    assert kernel.identify(Path(COWS[name].format("sb-7"))) is None
    assert survey(stage.byre.log, kernel, stage.byre.root) == ()
    stage.check_log()
    stage.check_quiet()


def test_its_life_goes_on_as_every_other_disks(stage: Stage) -> None:
    device = add(stage, WRENN)
    stage.kernel.write(f"/dev/mapper/{device}", 4096, KEPT)
    took(stage)
    stage.command(Trigger.PAUSE, "sb-7")
    assert stage.kernel.dm(device) is None
    assert stage.command(Trigger.RESTORE, "sb-7").device == f"/dev/mapper/{device}"
    assert stage.kernel.read(f"/dev/mapper/{device}", 4096, len(KEPT)) == KEPT
    stage.command(Trigger.REMOVE, "sb-7")
    # The loop of the base is the program's, for its other disks.
    assert [str(BASE)] == [loop.backing_path for loop in stage.kernel.loops()]


def test_a_file_at_rest_becomes_a_paused_disk_if_its_base_is_said(stage: Stage) -> None:
    path = Path(COWS["arcbox"].format("sb-7"))
    store = add_store(stage, "store")
    found = stage.kernel.identify(store)
    assert found is not None
    stage.kernel.move_file(store, path, found)
    assert "--base IMG" in look(stage, ARCBOX).advice
    given = taker(stage, ARCBOX, base=str(BASE))
    assert given.take(look(stage, ARCBOX, base=str(BASE))) == "sb-7"
    stage.settle()
    assert stage.record("sb-7").state is State.PAUSED
    assert stage.kernel.identify(path) is None


def test_a_file_that_somebody_has_open_is_not_moved(stage: Stage) -> None:
    path = Path(COWS["arcbox"].format("sb-7"))
    store = add_store(stage, "store")
    found = stage.kernel.identify(store)
    assert found is not None
    stage.kernel.move_file(store, path, found)
    user = Holder(kind="process", name="arcbox", pid=7)
    busy = Taker(stage.byre, ARCBOX, word=Word(base=str(BASE)), file_users=lambda _file: (user,))
    with pytest.raises(RefusedError, match="in use by"):
        busy.take(busy.look()[0])
    assert stage.kernel.identify(path) is not None


def test_what_was_taken_is_told_and_not_taken_again(stage: Stage) -> None:
    add(stage, WRENN)
    took(stage)
    found = look(stage)
    assert (found.is_taken, found.disk) == (True, "sb-7")
    events = stage.byre.log.last_seq()
    assert taker(stage).take(found) == "sb-7"
    assert events == stage.byre.log.last_seq()


def test_the_log_tells_of_it_before_and_after(stage: Stage) -> None:
    add(stage, WRENN)
    took(stage)
    told = stage.byre.log.select("WHERE type LIKE 'orphan.%' ORDER BY seq")
    assert told[0].type == "orphan.found"
    assert "wrenn-sb-7 of wrenn is taken over" in told[0].data["evidence"]
    resolved = {e.data["identity"] for e in told if e.type == "orphan.resolved"}
    assert told[0].data["identity"] in resolved
    assert {"a test"} == {event.reason for event in told}


# --- what is left alone --------------------------------------------------------------------------


def refused(stage: Stage, peer: Peer = WRENN, **word: str) -> str:
    """Check that what is there is refused and stays as it is; returns why."""
    found = look(stage, peer, **word)
    before = stage.kernel.dm(found.name)
    with pytest.raises(RefusedError):
        taker(stage, peer, **word).take(found)
    assert before == stage.kernel.dm(found.name)
    assert stage.kernel.identify(Path(found.cow)) is not None
    assert stage.byre.log.select("WHERE type = 'orphan.found'") == []
    return found.flaw


def test_exceptions_that_are_in_memory_alone(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = stage.kernel.dm(add(stage, WRENN))
    assert seen is not None
    assert seen.table is not None
    table = attrs.evolve(seen.table, persistent="N")
    monkeypatch.setattr(stage.kernel, "dm", lambda _name: attrs.evolve(seen, table=table))
    assert "would be lost with the device" in refused(stage)


def test_a_device_with_a_uuid_of_its_own(stage: Stage) -> None:
    device = stage.kernel.host.mapper.by_name(add(stage, WRENN))
    assert device is not None
    device.uuid = "LVM-x"
    assert "a UUID cannot be changed" in refused(stage)


def test_a_suspended_device(stage: Stage) -> None:
    stage.kernel.suspend_dm_by_hand(add(stage, WRENN))
    assert "suspended" in refused(stage)


def test_a_file_that_was_deleted_under_its_loop(stage: Stage) -> None:
    add(stage, WRENN)
    stage.kernel.delete(COWS["wrenn"].format("sb-7"))
    found = look(stage)
    assert "no such file" in found.flaw
    with pytest.raises(RefusedError):
        taker(stage).take(found)


def test_a_file_on_another_file_system_than_the_root(stage: Stage) -> None:
    stage.kernel.mount(Path("/var/lib/wrenn"), None)
    add(stage, WRENN)
    assert "two file systems" in refused(stage)
    assert "--root /var/lib/wrenn/byre" in look(stage).advice


def test_a_snapshot_that_is_lost(stage: Stage) -> None:
    """Its CoW is as large as its image, which a full rewrite overflows."""
    name = add(stage, WRENN)
    with pytest.raises(OSError, match="Input/output"):
        stage.kernel.write(f"/dev/mapper/{name}", 0, b"x" * MIB)
    assert "the snapshot is invalid" in refused(stage)


def test_a_base_that_can_be_written_to(stage: Stage) -> None:
    add_loop(stage, BASE, str(BASE))
    add(stage, WRENN)
    assert "which can be written to" in refused(stage)


def test_another_base_than_the_one_below_it(stage: Stage) -> None:
    other = stage.kernel.make_file("/srv/other.img", MIB)
    add(stage, WRENN)
    assert "is not what" in refused(stage, base=str(other))


def test_a_name_that_no_disk_can_have_or_another_has(stage: Stage) -> None:
    stage.live("taken")
    add(stage, ARCBOX, "Sandbox+1")
    assert "field 'name': found 'Sandbox+1'" in look(stage, ARCBOX).flaw
    assert "there is a disk named taken" in look(stage, ARCBOX, name="taken").flaw
    assert look(stage, ARCBOX, name="sandbox-1").flaw == ""


def test_ignites_device_with_zeros_behind_the_image(stage: Stage) -> None:
    """`ignite-<uid>-base` is a part of the other device, and no disk."""
    stage.kernel.add_foreign_dm("ignite-u1-base")
    assert taker(stage, IGNITE).look() == ()


def test_a_device_that_became_another_one_since_the_look(stage: Stage) -> None:
    name = add(stage, WRENN)
    found = look(stage)
    mapper = stage.kernel.host.mapper
    device = mapper.by_name(name)
    assert device is not None
    stage.kernel.remove_dm_by_hand(name)
    stage.kernel.add_foreign_dm("in-between")
    for loop in stage.kernel.loops():
        stage.kernel.detach_loop_by_hand(loop.number)
    stage.kernel.delete(COWS["wrenn"].format("sb-7"))
    add(stage, WRENN)
    with pytest.raises(IdentityMismatch):
        taker(stage).take(found)


# --- crashes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_call_is_gone_on_from(folder: Path, when: When) -> None:
    """The user of the device never notices; the call that follows ends where it should.

    Before and after each call: the commits of the log lie in between.
    """
    points = 0
    while _crash(folder / str(points), points, when):
        points += 1
    assert points > 10


def _crash(folder: Path, after: int, when: When) -> bool:
    """Die after so many calls; True if it was before the end."""
    folder.mkdir()
    stage = Stage(folder)
    device = add(stage, WRENN)
    node = f"/dev/mapper/{device}"
    stage.kernel.write(node, 4096, KEPT)
    died = False
    with stage.kernel.open(node, write=True):
        stage.kernel.faults.crash_at_call(stage.kernel.faults.calls + after + 1, when=when)
        try:
            taker(stage).take(look(stage))
        except SimCrash:
            died = True
        stage.kernel.faults.clear()
        stage.restart()
        stage.settle()
        assert stage.kernel.read(node, 4096, len(KEPT)) == KEPT
        assert took(stage) == "sb-7"
    assert stage.record("sb-7").state is State.RESTORED
    assert stage.kernel.read(node, 4096, len(KEPT)) == KEPT
    assert survey(stage.byre.log, stage.kernel, stage.byre.root) == ()
    stage.check_log()
    stage.close()
    return died

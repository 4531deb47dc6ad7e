"""What counts as an orphan, who is told of it once, and what a person's word may do to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from reconciler import survey as host
from reconciler.api import Byre
from reconciler.clock import SystemClock
from reconciler.daemon import Daemon
from reconciler.kernel.openfiles import users_of
from reconciler.kernel.sim import SimKernel
from reconciler.lock import RootLock
from reconciler.orphans import Orphan, OrphanKind, found_event, newly_found, survey
from reconciler.resolve import FileUsers, Resolver
from statemachine.errors import IdentityMismatch, NoSuchOrphan, RefusedError, RootBusy
from statemachine.events import Event
from statemachine.fileidentity import FileIdentity
from statemachine.machine import State, Trigger
from statemachine.names import base_marker
from statemachine.observed import Holder
from statemachine.units import Bytes
from tests.unit.builders import BASE, MIB, Stage
from tests.unit.strays import STRANGER, UUID, add_device, add_file, add_loop


def nobody(_file: FileIdentity) -> tuple[Holder, ...]:
    return ()


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def orphans(stage: Stage) -> tuple[Orphan, ...]:
    """Return what is found; whatever that is, a reconciler's first look must have an inkling."""
    found = survey(stage.byre.log, stage.kernel, stage.byre.root)
    seen = host.take(stage.kernel, stage.byre.root, stage.settings)
    assert not found or host.has_strangers(stage.byre.log.in_use(), seen, stage.kernel)
    return found


def names(stage: Stage) -> list[tuple[OrphanKind, str]]:
    return [(orphan.kind, orphan.name) for orphan in orphans(stage)]


def resolver(stage: Stage, users: FileUsers = nobody) -> Resolver:
    return Resolver(stage.byre, file_users=users, reason="a test")


# --- what is no orphan ---------------------------------------------------------------------------


def test_nothing_of_a_disk_in_any_state_is_an_orphan(stage: Stage) -> None:
    assert names(stage) == []
    stage.live()
    assert names(stage) == []
    for trigger in (Trigger.PAUSE, Trigger.RESTORE, Trigger.REMOVE):
        stage.command(trigger)
        assert names(stage) == [], trigger


def test_foreign_things_with_confusing_names_are_invisible(stage: Stage) -> None:
    stage.live()
    stage.kernel.add_foreign_dm("byre-x")
    stage.kernel.add_foreign_dm("byre-y", uuid="BYRE-not-really")
    stage.kernel.add_foreign_loop(stage.kernel.make_file("/srv/other.img", MIB))
    add_file(stage, "notes.txt")
    assert names(stage) == []


def test_what_a_transition_in_flight_has_made_is_no_orphan(stage: Stage) -> None:
    """Both the records of before and those of after the look are asked."""
    stage.live()
    seen: list[tuple[Orphan, ...]] = []
    kernel = stage.kernel
    ends = kernel.subscribe(lambda _name: seen.append(orphans(stage)))
    stage.command(Trigger.PAUSE)
    stage.command(Trigger.RESTORE)
    stage.command(Trigger.REMOVE)
    ends()
    assert seen
    assert [()] * len(seen) == seen


# --- what is one ---------------------------------------------------------------------------------


def test_a_device_of_an_unknown_disk_is_one_and_says_that_another_root_may_know_it(
    stage: Stage,
) -> None:
    stage.kernel.dm_create("byre-half", UUID)
    [orphan] = orphans(stage)
    assert (orphan.kind, orphan.name, orphan.identity) == (OrphanKind.DM, "byre-half", UUID)
    assert "another byre root may know it" in orphan.evidence


def test_a_device_whose_data_is_in_another_root_is_named_and_left_alone(stage: Stage) -> None:
    other = stage.kernel.make_file(f"/var/lib/other/cow/{STRANGER}.cow", 2 * MIB)
    add_device(stage, "byre-theirs", other)
    found = {orphan.name: orphan for orphan in orphans(stage)}
    assert {"byre-theirs", "loop1"} == set(found)
    assert f"its data is in {other}" in found["byre-theirs"].evidence
    for name in found:
        with pytest.raises(RefusedError, match="another byre root"):
            resolver(stage).remove(name)
    assert stage.kernel.dm("byre-theirs") is not None


def test_a_file_that_no_record_needs_is_one(stage: Stage) -> None:
    record = stage.live()
    add_file(stage, f"{STRANGER}.cow")
    add_file(stage, f"{record.id}-7.img")
    add_file(stage, f"{record.id}-1.img")
    found = {orphan.name: orphan for orphan in orphans(stage)}
    assert {f"{STRANGER}.cow", f"{record.id}-7.img", f"{record.id}-1.img"} == set(found)
    assert "sb-1, generation 7" in found[f"{record.id}-7.img"].evidence
    assert found[f"{STRANGER}.cow"].since is not None


def test_a_base_loop_without_a_disk_is_one_only_with_this_root_s_marker(stage: Stage) -> None:
    ours = add_loop(stage, BASE, base_marker(stage.byre.log.root_id), read_only=True)
    add_loop(stage, BASE, "BYRE-base-ffffffffffffffff", read_only=True)
    assert [(OrphanKind.LOOP, f"loop{ours.number}")] == names(stage)


def test_a_loop_on_the_file_of_a_paused_disk_is_one(stage: Stage) -> None:
    stage.live()
    record = stage.command(Trigger.PAUSE)
    loop = add_loop(stage, Path(record.cow_path), f"BYRE-{record.id}-1")
    assert [(OrphanKind.LOOP, f"loop{loop.number}")] == names(stage)
    resolver(stage).remove(loop.path)
    assert names(stage) == []
    assert stage.kernel.identify(Path(record.cow_path)) is not None
    stage.check()


def test_a_link_of_a_removed_disk_that_leads_nowhere_is_one(stage: Stage) -> None:
    stage.live()
    stage.command(Trigger.REMOVE)
    path = Path("/dev/mapper/byre-sb-1")
    stage.kernel.put_link(path, "../dm-77", replaces=None)
    stage.kernel.put_link(Path("/dev/mapper/byre-strange"), "../dm-78", replaces=None)
    assert [(OrphanKind.LINK, str(path))] == names(stage)
    resolver(stage).remove("/dev/mapper/byre-sb-1")
    assert names(stage) == []


# --- telling once --------------------------------------------------------------------------------


def test_an_orphan_is_told_once_and_again_after_it_was_resolved(stage: Stage) -> None:
    log = stage.byre.log
    path = add_file(stage, f"{STRANGER}.cow")
    [orphan] = newly_found(log, orphans(stage))
    log.append([found_event(orphan)])
    assert newly_found(log, orphans(stage)) == ()
    resolver(stage).remove(path.name)
    assert newly_found(log, orphans(stage)) == ()
    assert (orphan,) == newly_found(log, [orphan])
    stage.check_log()


def test_a_reconciler_tells_of_an_orphan_at_its_resync_and_only_once(folder: Path) -> None:
    kernel = SimKernel(SystemClock())
    with Byre(folder / "root", kernel=kernel) as byre:
        kernel.make_file(byre.root.cows / f"{STRANGER}.cow", MIB)
        for _ in range(2):
            daemon = Daemon(byre)
            thread = threading.Thread(target=daemon.run)
            thread.start()
            while not told_of(byre):
                assert thread.is_alive()
                time.sleep(0.01)
            daemon.reload()
            daemon.stop("the test is over")
            thread.join(30)
        [event] = told_of(byre)
        assert event.data["name"] == f"{STRANGER}.cow"


def told_of(byre: Byre) -> list[Event]:
    return byre.log.select("WHERE type = 'orphan.found'")


# --- removing ------------------------------------------------------------------------------------


def test_removing_a_device_takes_its_link_and_is_in_the_log(stage: Stage) -> None:
    cow = add_file(stage, f"{STRANGER}.cow")
    add_device(stage, "byre-lost", cow)
    resolver(stage).remove("/dev/mapper/byre-lost")
    assert stage.kernel.dm_names() == ()
    assert "byre-lost" not in stage.kernel.list_folder(Path("/dev/mapper"))
    [event] = stage.byre.log.select("WHERE type = 'orphan.resolved'")
    told = {key: event.data[key] for key in ("kind", "name", "identity", "resolution")}
    assert told == {"kind": "dm", "name": "byre-lost", "identity": UUID, "resolution": "removed"}
    assert event.reason == "a test"
    assert [(OrphanKind.FILE, cow.name), (OrphanKind.LOOP, "loop1")] == names(stage)


def test_a_device_in_use_is_refused_with_who_has_it(stage: Stage) -> None:
    cow = add_file(stage, f"{STRANGER}.cow")
    add_device(stage, "byre-lost", cow)
    number = stage.kernel.dm_names()[0].device.minor
    with stage.kernel.open(f"/dev/dm-{number}"):
        with pytest.raises(RefusedError, match="in use by process sim-user") as caught:
            resolver(stage).remove("byre-lost")
        assert caught.value.exit_code == 4
    with pytest.raises(RefusedError, match="in use by dm byre-lost"):
        resolver(stage).remove("loop1")
    with pytest.raises(RefusedError, match="in use by /dev/loop1"):
        resolver(stage).remove(cow.name)


def test_a_file_that_a_process_has_open_is_refused(stage: Stage) -> None:
    cow = add_file(stage, f"{STRANGER}.img")
    holder = Holder(kind="process", name="qemu", pid=7)
    with pytest.raises(RefusedError, match=r"process qemu \(pid 7\)"):
        resolver(stage, lambda _file: (holder,)).remove(cow.name)
    assert stage.kernel.identify(cow) is not None


def test_a_file_that_was_replaced_after_the_look_is_refused(stage: Stage) -> None:
    cow = add_file(stage, f"{STRANGER}.cow")

    class Racing(Resolver):
        def _named(self, name: str) -> Orphan:
            found = super()._named(name)
            stage.kernel.replace_file(cow, MIB, b"somebody's")
            return found

    with pytest.raises(IdentityMismatch):
        Racing(stage.byre, file_users=nobody).remove(cow.name)
    assert stage.kernel.read(cow, 0, 10) == b"somebody's"


def test_an_unknown_name_is_answered_with_those_that_there_are(stage: Stage) -> None:
    stage.live()
    add_file(stage, f"{STRANGER}.cow")
    for name in ("byre-sb-1", "nonsense"):
        with pytest.raises(NoSuchOrphan, match=f"there are: {STRANGER}.cow") as caught:
            resolver(stage).remove(name)
        assert caught.value.exit_code == 3


def test_nothing_is_removed_while_a_reconciler_has_the_root(stage: Stage) -> None:
    add_file(stage, f"{STRANGER}.cow")
    with RootLock(stage.byre.root.lock), pytest.raises(RootBusy):
        resolver(stage).remove(f"{STRANGER}.cow")


# --- giving back ---------------------------------------------------------------------------------


def test_a_renamed_device_is_given_back_to_its_disk(stage: Stage) -> None:
    live = stage.live()
    stage.kernel.write(live.device, 4096, b"kept")
    # As after `dmsetup rename`: the same UUID and the same CoW file under another name.
    stage.kernel.remove_dm_by_hand(live.device_name)
    add_device(stage, "renamed", Path(live.cow_path), uuid=f"BYRE-{live.id}-1")
    assert names(stage) == [(OrphanKind.DM, "renamed")]
    resolver(stage).adopt("renamed")
    stage.settle()
    assert State.RESTORED is stage.record().state
    assert stage.kernel.read(stage.record().device, 4096, 4) == b"kept"
    stage.check()


# --- who has a file open -------------------------------------------------------------------------


def test_other_processes_that_have_a_file_open_are_named_by_proc(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    status = file.stat()
    for pid, target in (("41", file), ("42", tmp_path)):
        folder = tmp_path / "proc" / pid / "fd"
        folder.mkdir(parents=True)
        (folder / "3").symlink_to(target)
        (folder.parent / "comm").write_text(f"program-{pid}\n")
    identity = FileIdentity(
        device=status.st_dev, inode=status.st_ino, size=Bytes(0), mtime_ns=status.st_mtime_ns
    )
    found = users_of(identity, proc=tmp_path / "proc")
    assert (Holder(kind="process", name="program-41", pid=41),) == found
    other = attrs.evolve(identity, inode=identity.inode + 10**6)
    assert users_of(other, proc=tmp_path / "proc") == ()

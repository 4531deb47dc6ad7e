"""A link that goes from one disk to another: one owner at any moment, whatever happens between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from reconciler.kernel.sim import SimCrash
from reconciler.specs import Sourced
from statemachine.errors import NoSuchDisk, RefusedError, UsageError
from statemachine.machine import LIVE, Desired, State, Trigger
from statemachine.observed import LinkKind
from statemachine.spec import DriverChoice
from statemachine.specreader import check_unique, parse
from tests.unit.builders import BASE, LINK, Stage

OTHER = LINK.with_name("other.link")
SECOND = LINK.parents[1] / "sb-2" / "rootfs.link"


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def target(stage: Stage, link: Path = LINK) -> str:
    return stage.kernel.read_link(link).target


def apply(stage: Stage, *disks: tuple[str, str, Path | None], prune: bool = False) -> None:
    tables = [
        {"name": name, "base": str(BASE), "state": state} | ({"link": str(link)} if link else {})
        for name, state, link in disks
    ]
    specs = parse({"disk": tables}, source="set", folder=Path("/"))
    check_unique([("set", spec) for spec in specs])
    stage.byre.apply([Sourced("set", spec) for spec in specs], prune=prune)


def both_live(stage: Stage, *, link: Path | None = None) -> None:
    stage.live("sb-1", link=LINK)
    stage.live("sb-2", link=link)


def owners(stage: Stage) -> list[str]:
    return [record.name for record in stage.byre.log.records() if record.wanted.link == LINK]


# --- between two live disks -----------------------------------------------------------------------


@pytest.mark.parametrize("has_dm", [True, False], ids=["dm", "clone"])
def test_the_link_turns_at_once_and_only_its_new_disk_touches_it(
    stage: Stage, *, has_dm: bool
) -> None:
    stage.kernel.host.dm_errno = 0 if has_dm else 19
    both_live(stage)
    stage.byre.hand_over("sb-2", "sb-1")
    assert target(stage) == stage.record("sb-1").device  # nobody did anything yet
    assert owners(stage) == ["sb-2"]
    before = len(stage.kernel.trace)
    stage.settle()
    touched = [call.name for call in stage.kernel.trace[before:] if LINK in call.args]
    assert {name for name in touched if name != "read_link"} == {"put_link"}
    assert target(stage) == stage.record("sb-2").device
    assert stage.record("sb-1").state in LIVE
    stage.check()
    stage.check_quiet()


def test_the_log_tells_of_both_in_one_request(stage: Stage) -> None:
    both_live(stage)
    stage.byre.hand_over("sb-2", "sb-1", reason="restored under another name")
    lost, won = stage.events("sb-1")[-1], stage.events("sb-2")[-1]
    assert (lost.data["link_to"], lost.data["without"]) == ("sb-2", ["link"])
    assert (won.data["link_from"], won.data["link_taken"]) == ("sb-1", "/dev/mapper/byre-sb-1")
    assert won.data["spec"]["link"] == str(LINK)
    assert won.seq == lost.seq + 1
    assert won.correlation_id == lost.correlation_id
    assert won.reason == lost.reason == "restored under another name"


def test_said_twice_it_is_recorded_once(stage: Stage) -> None:
    both_live(stage)
    assert [each.changed for each in stage.byre.hand_over("sb-2", "sb-1")] == [True, True]
    assert [each.changed for each in stage.byre.hand_over("sb-2", "sb-1")] == [False, False]
    stage.settle()
    assert [each.changed for each in stage.byre.hand_over("sb-2", "sb-1")] == [False, False]


def test_a_waiting_command_waits_for_the_symlink(stage: Stage) -> None:
    both_live(stage)
    stage.byre.hand_over("sb-2", "sb-1")
    [waited] = stage.byre.wait(["sb-2"], timeout_s=60)
    assert waited.is_there
    assert target(stage) == "/dev/mapper/byre-sb-2"


def test_a_link_of_its_own_goes_when_another_is_taken_over(stage: Stage) -> None:
    both_live(stage, link=SECOND)
    stage.byre.hand_over("sb-2", "sb-1")
    stage.settle()
    assert target(stage) == "/dev/mapper/byre-sb-2"
    assert stage.kernel.read_link(SECOND).kind is LinkKind.MISSING
    assert stage.kernel.identify(SECOND.parent) is None
    stage.check()


def test_it_goes_back_and_on_before_anybody_turned_it(stage: Stage) -> None:
    both_live(stage)
    stage.live("sb-3")
    stage.byre.hand_over("sb-2", "sb-1")
    stage.byre.hand_over("sb-3", "sb-2")
    assert stage.record("sb-3").link_taken == "/dev/mapper/byre-sb-1"
    stage.settle()
    assert target(stage) == "/dev/mapper/byre-sb-3"
    stage.byre.hand_over("sb-1", "sb-3")
    stage.settle()
    assert target(stage) == "/dev/mapper/byre-sb-1"
    stage.check()


# --- sets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["live", "paused", "removed"])
def test_a_set_in_which_the_path_moves_moves_it(stage: Stage, state: str) -> None:
    both_live(stage)
    keeps = LINK if state == "removed" else None
    wanted = (("sb-1", state, keeps), ("sb-2", "live", LINK))
    apply(stage, *wanted)
    assert owners(stage) == ["sb-2"]
    apply(stage, *wanted)
    assert stage.events("sb-2")[-1].data["link_from"] == "sb-1"
    stage.settle()
    assert target(stage) == "/dev/mapper/byre-sb-2"
    stage.check()
    seq = stage.byre.log.last_seq()
    if state != "removed":
        apply(stage, *wanted)
    assert stage.byre.log.last_seq() == seq


def test_a_new_disk_takes_the_path_of_one_that_is_pruned(stage: Stage) -> None:
    stage.live("sb-1", link=LINK)
    apply(stage, ("sb-2", "live", LINK), prune=True)
    assert (owners(stage), stage.record("sb-1").desired) == (["sb-2"], Desired.REMOVED)
    stage.settle()
    assert target(stage) == "/dev/mapper/byre-sb-2"
    assert stage.record("sb-1").state is State.REMOVED
    stage.check()


def test_two_disks_swap_their_paths_in_one_set(stage: Stage) -> None:
    both_live(stage, link=OTHER)
    apply(stage, ("sb-1", "live", OTHER), ("sb-2", "live", LINK))
    stage.settle()
    assert target(stage, LINK) == "/dev/mapper/byre-sb-2"
    assert target(stage, OTHER) == "/dev/mapper/byre-sb-1"
    stage.check()
    stage.check_quiet()


# --- a machine's disk under another name ----------------------------------------------------------


def test_a_paused_disk_gives_the_path_to_the_one_that_is_restored(stage: Stage) -> None:
    both_live(stage)
    stage.command(Trigger.PAUSE, "sb-2")
    stage.command(Trigger.PAUSE, "sb-1")
    stage.byre.hand_over("sb-2", "sb-1")
    stage.command(Trigger.RESTORE, "sb-2")
    assert target(stage) == "/dev/mapper/byre-sb-2"
    stage.command(Trigger.RESTORE, "sb-1")  # it has no claim on the path any more
    assert target(stage) == "/dev/mapper/byre-sb-2"
    stage.check()


def test_a_disk_that_stays_paused_takes_the_path_out_of_the_world(stage: Stage) -> None:
    both_live(stage)
    stage.command(Trigger.PAUSE, "sb-2")
    stage.byre.hand_over("sb-2", "sb-1")
    stage.settle()
    assert stage.kernel.read_link(LINK).kind is LinkKind.MISSING
    stage.check()


def test_the_new_disk_is_removed_before_it_turned_the_link(stage: Stage) -> None:
    both_live(stage)
    stage.byre.hand_over("sb-2", "sb-1")
    stage.command(Trigger.REMOVE, "sb-2")
    assert stage.kernel.read_link(LINK).kind is LinkKind.MISSING
    stage.check()


def test_another_wish_before_the_link_was_turned_takes_it_away(stage: Stage) -> None:
    both_live(stage)
    stage.byre.hand_over("sb-2", "sb-1")
    stage.declare("sb-2", link=OTHER)
    stage.settle()
    assert stage.kernel.read_link(LINK).kind is LinkKind.MISSING
    assert target(stage, OTHER) == "/dev/mapper/byre-sb-2"
    stage.check()


def test_a_restore_that_fails_gives_the_symlink_back_to_a_live_device(stage: Stage) -> None:
    both_live(stage)
    stage.command(Trigger.PAUSE, "sb-2")
    stage.byre.hand_over("sb-2", "sb-1")
    stage.byre.command(["sb-2"], Trigger.RESTORE)
    stage.kernel.faults.fail("loop_set_autoclear", 5)
    stage.once("sb-2")
    assert stage.record("sb-2").failure is not None
    assert target(stage) == "/dev/mapper/byre-sb-1"
    stage.kernel.faults.clear()
    stage.byre.retry(["sb-2"])
    stage.settle()
    assert target(stage) == "/dev/mapper/byre-sb-2"


# --- refusals -------------------------------------------------------------------------------------


def test_what_cannot_be_taken_over_is_refused_and_nothing_is_recorded(stage: Stage) -> None:
    both_live(stage)
    stage.live("sb-3")
    stage.command(Trigger.REMOVE, "sb-3")
    seq = stage.byre.log.last_seq()
    with pytest.raises(UsageError, match="two disks"):
        stage.byre.hand_over("sb-1", "sb-1")
    with pytest.raises(NoSuchDisk):
        stage.byre.hand_over("sb-9", "sb-1")
    with pytest.raises(RefusedError, match="no link that sb-1 could take over"):
        stage.byre.hand_over("sb-1", "sb-2")
    with pytest.raises(RefusedError, match="removed"):
        stage.byre.hand_over("sb-3", "sb-1")
    assert stage.byre.log.last_seq() == seq


def test_a_disk_that_is_being_made_live_keeps_its_link_until_it_is(stage: Stage) -> None:
    stage.live("sb-2")
    stage.declare("sb-1", link=LINK)
    stage.kernel.faults.crash_in("put_link", when="before")
    with pytest.raises(SimCrash):
        stage.settle()
    stage.kernel.faults.clear()
    stage.restart()
    with pytest.raises(RefusedError, match="its snapshot is not done"):
        stage.byre.hand_over("sb-2", "sb-1")
    stage.settle()
    stage.byre.hand_over("sb-2", "sb-1")
    stage.settle()
    assert target(stage) == "/dev/mapper/byre-sb-2"


def test_somebody_elses_symlink_in_the_place_is_refused_still(stage: Stage) -> None:
    both_live(stage)
    stage.kernel.delete(LINK)
    stage.kernel.put_link(LINK, "/dev/sda", replaces=None)
    stage.byre.hand_over("sb-2", "sb-1")
    stage.once("sb-2")
    failure = stage.record("sb-2").failure
    assert failure is not None
    assert failure.kind == "foreign-device"
    assert target(stage) == "/dev/sda"


def places(stage: Stage) -> set[str]:
    """Return every device there is, by the path that a link may have."""
    mapped = {f"/dev/mapper/{line.name}" for line in stage.kernel.dm_names()}
    return mapped | {loop.path for loop in stage.kernel.loops()}


# --- crashes --------------------------------------------------------------------------------------


def _moved(folder: Path, *, is_live: bool, driver: DriverChoice) -> Stage:
    stage = Stage(folder)
    stage.live("sb-1", link=LINK, driver=driver)
    stage.live("sb-2", driver=driver)
    if not is_live:
        stage.command(Trigger.PAUSE, "sb-2")
    stage.byre.hand_over("sb-2", "sb-1")
    if not is_live:
        stage.byre.command(["sb-2"], Trigger.RESTORE)
    return stage


@pytest.mark.parametrize("driver", [DriverChoice.DM_SNAPSHOT, DriverChoice.CLONE])
@pytest.mark.parametrize("is_live", [True, False], ids=["repair", "restore"])
def test_a_crash_at_any_point_leaves_one_owner_and_the_link_is_never_away(
    tmp_path_factory: pytest.TempPathFactory, *, is_live: bool, driver: DriverChoice
) -> None:
    points: Sequence[int] = [0]
    number = 0
    while number < len(points):
        stage = _moved(tmp_path_factory.mktemp("root"), is_live=is_live, driver=driver)
        faults, began = stage.kernel.faults, stage.kernel.faults.calls
        if number:
            faults.crash_at_call(began + points[number], when="after")
            with pytest.raises(SimCrash):
                stage.settle()
            faults.clear()
            faults.revive()
            # Whatever the point: the path leads to a device that is there.
            assert target(stage) in places(stage)
            stage.restart()
        else:
            stage.settle()
            changes = [each for each in stage.kernel.trace if each.number > began]
            points = [0, *(call.number - began for call in changes if call.is_change)]
        stage.settle()
        assert target(stage) == stage.record("sb-2").device
        assert owners(stage) == ["sb-2"]
        stage.check()
        stage.check_quiet()
        stage.close()
        number += 1
    assert len(points) > 1


def test_only_the_disks_that_have_a_place_are_read_for_it(stage: Stage) -> None:
    tables = [
        {
            "name": f"sb-{number}",
            "base": str(BASE),
            "link": f"/srv/vm/{number}",
            "jail": {"root": f"/srv/jail/{number}", "node": "dev/rootfs", "uid": 1, "gid": 1},
        }
        for number in range(3)
    ]
    specs = parse({"disk": tables}, source="set", folder=Path("/"))
    stage.byre.apply([Sourced("set", spec) for spec in specs])

    def names_at(*places: str) -> list[str]:
        return [
            str(record.name) for record in stage.byre.log.in_use_at([Path(each) for each in places])
        ]

    assert names_at("/srv/vm/1", "/srv/vm/9") == ["sb-1"]
    assert names_at("/srv/jail/2/dev/rootfs", "/srv/vm/0") == ["sb-0", "sb-2"]
    assert names_at("/srv/vm") == names_at() == []

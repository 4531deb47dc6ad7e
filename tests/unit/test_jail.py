"""A disk with a node in a jail: made, remade, removed; what is somebody else's is refused."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler import survey
from reconciler.kernel.sim import SimCrash
from statemachine.errors import RefusedError, SpecError
from statemachine.jail import Jail
from statemachine.machine import Desired, State, Trigger
from statemachine.observed import DeviceNumber, LinkKind, NodeObservation
from statemachine.plight import Failure
from statemachine.spec import DiskSpec, DriverChoice
from statemachine.specreader import parse
from tests.unit.builders import JAIL, NODE, Stage

ROOT = Path("/srv/jailer/sb-1/root")
JAILED = Jail(root=ROOT, node=Path("dev/rootfs"), uid=1001, gid=1002)
OTHER = {**JAIL, "node": "dev/other"}
STRANGE = DeviceNumber(8, 1)


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def seen(stage: Stage) -> NodeObservation:
    return stage.kernel.look_at_node(JAILED)


def failure(stage: Stage) -> Failure:
    found = stage.record().failure
    assert found is not None
    return found


def occupy(stage: Stage, what: str) -> None:
    """Put something of somebody's in the node's place."""
    stage.kernel.make_folder_by_hand(NODE.parent)
    if what == "node":
        stage.kernel.ensure_node(STRANGE, NODE)
    elif what == "file":
        stage.kernel.make_file(NODE, 4096, b"an old copy")
    else:
        stage.kernel.put_link(NODE, "/dev/mapper/byre-sb-1", replaces=None)


@pytest.mark.parametrize("driver", [DriverChoice.DM_SNAPSHOT, DriverChoice.CLONE])
def test_the_node_comes_and_goes_with_the_device(stage: Stage, driver: DriverChoice) -> None:
    record = stage.live(jail=JAIL, driver=driver)
    expected = NodeObservation(
        kind=LinkKind.DEVICE, number=record.device_number, uid=1001, gid=1002, mode=0o600
    )
    assert expected == seen(stage)
    assert (str(NODE), record.device_number) == (record.jail_node, record.jail_number)
    stage.check()
    stage.check_quiet()
    assert stage.command(Trigger.PAUSE).jail_node == ""
    assert stage.kernel.identify(ROOT) is None, "the folders that were made for the node"
    assert stage.command(Trigger.RESTORE).jail_node == str(NODE)
    stage.check()
    stage.command(Trigger.REMOVE)
    assert stage.kernel.identify(ROOT) is None
    stage.check()


def test_a_node_of_an_earlier_life_leads_to_the_new_device(stage: Stage) -> None:
    before = stage.live(jail=JAIL).device_number
    stage.kernel.reboot(renumber=True)
    stage.restart()
    # Somebody else's device has the number by now.
    stage.kernel.dm_create("strange", "STRANGE-1")
    stage.settle()
    record = stage.record()
    assert before != record.device_number
    assert record.device_number == seen(stage).number
    stage.check()
    assert "drift.detected lose" in stage.types()


@pytest.mark.parametrize("is_begun", [False, True])
def test_no_node_of_before_a_reboot_is_left_to_lead_to_another_disk(
    stage: Stage, *, is_begun: bool
) -> None:
    stage.declare(jail=JAIL)
    if is_begun:
        stage.kernel.faults.crash_in("put_node", when="after")
        with pytest.raises(SimCrash):
            stage.settle()
        stage.kernel.faults.revive()
    else:
        stage.settle()
    assert seen(stage).kind is LinkKind.DEVICE
    stage.kernel.reboot()
    stage.restart()
    assert seen(stage).kind is LinkKind.MISSING
    stage.settle()
    stage.check()


def test_somebodys_node_outlives_a_reboot(stage: Stage) -> None:
    stage.live(jail=JAIL)
    delete(stage)
    occupy(stage, "node")
    stage.kernel.reboot()
    stage.restart()
    assert seen(stage).number == str(STRANGE)


@pytest.mark.parametrize("what", ["node", "file", "link"])
def test_what_is_somebodys_is_refused_before_anything_is_made(stage: Stage, what: str) -> None:
    occupy(stage, what)
    before = stage.kernel.read_link(NODE)
    stage.declare(jail=JAIL)
    stage.settle()
    found = failure(stage)
    assert (found.kind, found.exit_code) == ("foreign-device", 4)
    named = {"node": "a device node 8:1", "file": "a file or folder", "link": "a symlink"}[what]
    assert found.message == f"node {NODE} is occupied: {named}, not made by byre"
    assert before == stage.kernel.read_link(NODE)
    assert stage.kernel.loops() == ()
    stage.kernel.delete(NODE)
    stage.settle()
    stage.check()


@pytest.mark.parametrize("trigger", [Trigger.PAUSE, Trigger.REMOVE])
def test_what_somebody_put_in_the_nodes_place_stays(stage: Stage, trigger: Trigger) -> None:
    stage.live(jail=JAIL)
    stage.kernel.delete(NODE)
    occupy(stage, "node")
    stage.command(trigger)
    assert str(STRANGE) == seen(stage).number
    assert stage.record().failure is None


def delete(stage: Stage) -> None:
    stage.kernel.delete(NODE)


def give_away(stage: Stage) -> None:
    delete(stage)
    number = DeviceNumber.parse(stage.record().device_number)
    thief = Jail(root=ROOT, node=JAILED.node, uid=666, gid=666)
    stage.kernel.put_node(thief, number, replaces=None)


@pytest.mark.parametrize(
    ("spoil", "difference"),
    [
        (delete, f"node {NODE}: is missing"),
        (
            give_away,
            f"node {NODE}: has uid 666, gid 666, mode 0600, not uid 1001, gid 1002, mode 0600",
        ),
    ],
)
@pytest.mark.parametrize("driver", [DriverChoice.DM_SNAPSHOT, DriverChoice.CLONE])
def test_drift_is_told_and_repaired(
    stage: Stage, spoil: object, difference: str, driver: DriverChoice
) -> None:
    stage.live(jail=JAIL, driver=driver)
    assert callable(spoil)
    spoil(stage)
    stage.settle()
    [drift] = [each for each in stage.events() if each.type == "drift.detected"]
    assert [difference] == drift.data["differences"]
    stage.check()
    stage.check_quiet()


def test_a_survey_sees_a_node_that_is_gone(stage: Stage) -> None:
    record = stage.live(jail=JAIL)

    def is_quiet() -> bool:
        found = survey.take(stage.kernel, stage.byre.root, stage.settings)
        return survey.is_quiet(record, found, stage.kernel)

    assert is_quiet()
    delete(stage)
    assert not is_quiet()


def test_a_file_in_the_place_of_a_live_disks_node_is_not_overwritten(stage: Stage) -> None:
    stage.live(jail=JAIL)
    stage.kernel.delete(NODE)
    occupy(stage, "file")
    stage.settle()
    assert failure(stage).kind == "foreign-device"
    assert seen(stage).kind is LinkKind.OCCUPIED
    assert stage.record().state is State.SNAPSHOTTED


@pytest.mark.parametrize("jail", [OTHER, None])
def test_another_wish_moves_the_node(stage: Stage, jail: dict[str, object] | None) -> None:
    stage.live(jail=JAIL)
    stage.live(jail=jail)
    assert seen(stage).kind is LinkKind.MISSING
    stage.check()
    stage.check_quiet()
    stage.command(Trigger.REMOVE)
    assert stage.kernel.identify(ROOT) is None


@pytest.mark.parametrize("jail", [OTHER, None])
def test_a_node_that_a_crash_left_goes(stage: Stage, jail: dict[str, object] | None) -> None:
    stage.declare(jail=JAIL)
    stage.kernel.faults.crash_in("put_node", when="after")
    with pytest.raises(SimCrash):
        stage.settle()
    stage.restart()
    assert seen(stage).kind is LinkKind.DEVICE
    stage.declare(jail=jail)
    stage.settle()
    assert seen(stage).kind is LinkKind.MISSING
    stage.check()
    stage.check_quiet()


def test_a_node_stays_with_a_device_that_cannot_be_removed(stage: Stage) -> None:
    stage.live(jail=JAIL)
    stage.kernel.faults.fail("dm_remove", errno.EIO, times=1)
    stage.byre.command(["sb-1"], Trigger.PAUSE)
    assert stage.once().state is State.SNAPSHOTTED
    assert seen(stage).number == stage.record().device_number
    stage.settle()


def no_privilege(stage: Stage) -> None:
    stage.kernel.host.mknod_errno = errno.EPERM


def no_devices(stage: Stage) -> None:
    stage.kernel.host.tree.root.fs.nodev = True


def no_loops(stage: Stage) -> None:
    stage.kernel.host.loop_errno = errno.EPERM


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (no_privilege, "may make no device node"),
        (no_devices, "is nodev: a device node there opens nothing"),
        (no_loops, "is offered as a plain file, which has no device number"),
    ],
)
def test_what_cannot_be_a_node_says_why_and_comes_when_it_can_be(
    stage: Stage, spoil: object, why: str
) -> None:
    assert callable(spoil)
    spoil(stage)
    stage.declare(jail=JAIL)
    stage.settle()
    found = failure(stage)
    assert (found.kind, found.consequence) == ("no-node", "permanent")
    assert str(NODE) in found.message
    assert why in found.message
    host = stage.kernel.host
    host.mknod_errno, host.loop_errno, host.tree.root.fs.nodev = 0, 0, False
    stage.settle()
    stage.check()


def test_a_plain_file_that_is_live_gets_no_node_and_stays(stage: Stage) -> None:
    no_loops(stage)
    stage.live()
    stage.live(jail=JAIL)
    assert failure(stage).kind == "no-node"
    assert stage.kernel.identify(ROOT) is None
    assert stage.live().state is State.SNAPSHOTTED
    stage.check()


def test_the_plan_looks_once_and_says_whose_the_node_is(stage: Stage) -> None:
    stage.declare(jail=JAIL, state=Desired.ATTACHED)
    stage.settle()
    stage.declare(jail=JAIL)
    view, _ = stage.byre.look(stage.record())
    actions = [
        *map(str, view.driver.plan(Trigger.SNAPSHOT, view.record, view.observed, view.ground))
    ]
    assert actions.count(f"check that node {NODE} can be made") == 1
    assert f"make node {NODE} for uid 1001, gid 1002" in actions


def test_two_disks_cannot_have_one_node(stage: Stage) -> None:
    stage.live(jail=JAIL)
    with pytest.raises(RefusedError, match=f"node {NODE} belongs to disk 'sb-1'"):
        stage.declare("sb-2", jail=JAIL)
    stage.declare("sb-1", Desired.PAUSED, jail=JAIL)
    stage.settle()
    stage.live("sb-2", jail=JAIL)
    assert seen(stage).number == stage.record("sb-2").device_number


# --- the spec -------------------------------------------------------------------------------------


def spec_of(**jail: object) -> DiskSpec:
    table = {"name": "sb-1", "base": "/b", "jail": {**JAIL, **jail}}
    [spec] = parse({"disk": [table]}, source="the test", folder=Path("/specs"))
    return spec


def test_a_spec_with_a_jail_is_read_back_from_its_data() -> None:
    spec = spec_of(root="jails/1")
    assert spec.jail == Jail(root=Path("/specs/jails/1"), node=JAILED.node, uid=1001, gid=1002)
    assert spec == DiskSpec.from_data(spec.to_data())


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("root", None, "a path: printable text, not empty"),
        ("root", "/a/../b", "a path without '..'"),
        ("node", "/dev/rootfs", "a path inside the jail's root: relative, without '..'"),
        ("node", "../rootfs", "a path inside the jail's root: relative, without '..'"),
        ("node", "", "a path inside the jail's root: relative, without '..'"),
        ("node", None, "a path inside the jail's root: relative, without '..'"),
        ("uid", -1, "a number, 0 to 4294967294"),
        ("uid", True, "a number, 0 to 4294967294"),
        ("gid", 2**32 - 1, "a number, 0 to 4294967294"),
        ("gid", "root", "a number, 0 to 4294967294"),
        ("mode", 0o600, "the fields root, node, uid, gid"),
    ],
)
def test_a_fault_in_a_jail_names_the_field(field: str, value: object, allowed: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(**{field: value})
    [fault] = caught.value.faults
    assert f"field 'jail.{field}'" in fault
    assert f"allowed: {allowed}" in fault


def test_a_jail_is_a_table_and_its_node_not_the_link() -> None:
    table: dict[str, object] = {"name": "sb-1", "base": "/b", "jail": "/srv/jail"}
    with pytest.raises(SpecError, match=r"field 'jail': .*a table with root, node, uid, gid"):
        parse({"disk": [table]}, source="the test", folder=Path("/"))
    table = {"name": "sb-1", "base": "/b", "jail": JAIL, "link": str(NODE)}
    with pytest.raises(SpecError, match="another path than the link's"):
        parse({"disk": [table]}, source="the test", folder=Path("/"))

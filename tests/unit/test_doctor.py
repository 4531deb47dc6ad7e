"""Each check of the doctor on made-up hosts: what it finds, how much it matters, what to do."""

from __future__ import annotations

import errno
import json
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from reconciler import clash, doctor, udev
from reconciler.checkup import devices, neighbours, software, storage
from reconciler.checkup.finding import Check, Finding, Level, Patient
from reconciler.cli.app import run
from reconciler.kernel.linux import LinuxKernel
from reconciler.kernel.probe import reflink_refusal
from reconciler.root import Root
from statemachine.eventlog import EventLog
from statemachine.events import EventType, NewEvent
from statemachine.names import HOST
from statemachine.spec import DriverChoice
from tests.unit.builders import Stage


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    """A healthy host, all of it under one folder."""
    host = tmp_path / "host"
    proc = host / "proc"
    for name in ("proc", "sys", "dev", "etc", "run", "lib"):
        (host / name).mkdir(parents=True)
    (host / "dev/loop-control").touch()
    write(proc / "self/status", "Name:\tpython\nCapEff:\t000001ffffffffff\n")
    write(proc / "self/mountinfo", "21 1 8:1 / / rw,relatime - ext4 /dev/vda rw\n")
    write(proc / "sys/fs/inotify/max_user_watches", "65536\n")
    write(proc / "sys/fs/inotify/max_user_instances", "128\n")
    return Patient(
        root=Root(tmp_path / "root"),
        proc=proc,
        sys=host / "sys",
        dev=host / "dev",
        etc=host / "etc",
        run=host / "run",
        lib=host / "lib",
        release="6.1.0-1-amd64",
        targets=lambda _control: frozenset({"snapshot", "snapshot-origin", "linear"}),
        reflink=lambda _folder: "",
        which=lambda _program: None,
        installed=lambda _distribution: "",
    )


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def failing(number: int) -> Callable[[Path], frozenset[str]]:
    def targets(_control: Path) -> frozenset[str]:
        raise OSError(number, os.strerror(number))

    return targets


def level(check: Check, patient: Patient) -> Level:
    return check(patient).level


def text(finding: Finding) -> str:
    return f"{finding.found} → {finding.remedy}"


# --- as a whole ----------------------------------------------------------------------------------


def test_this_host_is_examined_without_a_trace(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    findings = doctor.examine(doctor.patient_of(root, LinuxKernel()))
    assert len(doctor.CHECKS) == len({finding.check for finding in findings})
    assert list(tmp_path.iterdir()) == []


def test_everything_but_ok_has_a_remedy(patient: Patient) -> None:
    sick = attrs.evolve(
        patient,
        targets=failing(errno.ENODEV),
        reflink=lambda _folder: "Operation not supported",
        which=lambda program: f"/sbin/{program}",
        release="5.4.0",
        sqlite=(3, 8, 0),
        installed=lambda _distribution: "2.3.4",
    )
    (sick.dev / "loop-control").unlink()
    (sick.dev / "loop").mkdir()
    write(sick.proc / "self/status", "CapEff:\t0000000000000000\n")
    for finding in doctor.examine(sick):
        if finding.level is not Level.OK and finding.check != "ipc-namespace":
            assert finding.remedy, finding


def test_a_check_that_cannot_look_stops_none_of_the_others(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_patient: Patient) -> Finding:
        raise PermissionError(errno.EACCES, "Permission denied", "/secret")

    monkeypatch.setattr(doctor, "CHECKS", (broken, software.sqlite))
    first, second = doctor.examine(patient)
    assert (first.level, second.level) == (Level.WARNING, Level.OK)
    assert "/secret" in first.found


# --- devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.ENODEV, "modprobe dm-mod"),
        (errno.ENOENT, "modprobe dm-mod"),
        (errno.EACCES, "as root"),
        (errno.EPERM, "as root"),
    ],
)
def test_the_reasons_for_no_device_mapper_are_told_apart(
    patient: Patient, number: int, word: str
) -> None:
    finding = devices.dm(attrs.evolve(patient, targets=failing(number)))
    assert Level.WARNING is finding.level
    assert word in finding.remedy


def test_a_missing_target_names_its_module(patient: Patient) -> None:
    finding = devices.dm(attrs.evolve(patient, targets=lambda _control: frozenset({"linear"})))
    assert Level.WARNING is finding.level
    assert "modprobe dm-snapshot" in finding.remedy


def test_no_device_mapper_is_a_blocker_for_disks_that_are_snapshots(
    patient: Patient, stage: Stage
) -> None:
    record = stage.live()
    assert record.driver == DriverChoice.DM_SNAPSHOT
    sick = attrs.evolve(patient, targets=failing(errno.ENODEV), records=(record,))
    finding = devices.dm(sick)
    assert Level.BLOCKER is finding.level
    assert "sb-1" in finding.found


def test_no_loop_control_is_a_warning_as_plain_files_work(patient: Patient) -> None:
    assert Level.OK is level(devices.loop_control, patient)
    (patient.dev / "loop-control").unlink()
    assert Level.WARNING is level(devices.loop_control, patient)


def test_the_limit_of_loops_is_noted_when_it_is_near(patient: Patient, stage: Stage) -> None:
    write(patient.sys / "module/loop/parameters/max_loop", "2\n")
    assert Level.OK is level(devices.max_loop, patient)
    stage.live()
    assert Level.NOTE is level(devices.max_loop, attrs.evolve(patient, loops=stage.kernel.loops))


def test_a_folder_dev_loop_blinds_losetup(patient: Patient) -> None:
    (patient.dev / "loop").mkdir()
    assert "losetup" in devices.loop_folder(patient).found


def test_missing_capabilities_are_named(patient: Patient) -> None:
    write(patient.proc / "self/status", f"CapEff:\t{1 << 27:016x}\n")
    finding = devices.privilege(patient)
    assert Level.WARNING is finding.level
    assert "CAP_SYS_ADMIN" in finding.found
    assert "CAP_MKNOD" not in finding.found


@pytest.mark.parametrize(
    ("release", "expected"),
    [("5.7.19", Level.NOTE), ("5.8.0", Level.OK), ("6.18.4-x", Level.OK), ("odd", Level.OK)],
)
def test_loop_configure_came_with_5_8(patient: Patient, release: str, expected: Level) -> None:
    assert expected is level(devices.kernel_version, attrs.evolve(patient, release=release))


def test_another_ipc_namespace_is_noted_with_why_byre_does_not_mind(patient: Patient) -> None:
    for pid, target in (("self", "ipc:[1]"), ("1", "ipc:[2]")):
        (patient.proc / pid / "ns").mkdir(parents=True)
        (patient.proc / pid / "ns/ipc").symlink_to(target)
    finding = devices.ipc_namespace(patient)
    assert Level.NOTE is finding.level
    assert "no cookies" in finding.found
    (patient.proc / "1/ns/ipc").unlink()
    assert "cannot be compared" in devices.ipc_namespace(patient).found
    (patient.proc / "1/ns/ipc").symlink_to("ipc:[1]")
    assert Level.OK is level(devices.ipc_namespace, patient)


# --- storage -------------------------------------------------------------------------------------


def test_a_root_in_a_place_that_cannot_be_written_is_a_blocker(patient: Patient) -> None:
    assert Level.OK is level(storage.writable, patient)
    read_only = attrs.evolve(patient, root=Root(Path("/proc/self/byre")))
    assert Level.BLOCKER is level(storage.writable, read_only)


def test_no_reflink_is_a_note(patient: Patient) -> None:
    assert Level.OK is level(storage.reflink, patient)
    finding = storage.reflink(attrs.evolve(patient, reflink=lambda _folder: "not here"))
    assert (finding.level, "not here" in finding.found) == (Level.NOTE, True)


def test_the_reflink_probe_leaves_nothing(tmp_path: Path) -> None:
    reflink_refusal(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert reflink_refusal(tmp_path / "missing")


def test_a_nodev_mount_over_jails_is_a_warning_and_the_innermost_mount_counts(
    patient: Patient,
) -> None:
    lines = (
        "22 21 8:2 / /srv rw,nodev - ext4 /dev/b rw\n23 22 8:3 / /srv/my\\040jails rw - xfs c rw\n"
    )
    with (patient.proc / "self/mountinfo").open("a") as file:
        file.write(lines)
    jails = attrs.evolve(patient, jail_folders=(Path("/srv"), Path("/srv/my jails")))
    finding = storage.nodev(jails)
    assert Level.WARNING is finding.level
    assert "/srv (mount /srv)" in finding.found
    assert "my jails" not in finding.found


@pytest.fixture
def log_path(patient: Patient) -> Path:
    with EventLog(patient.root.log) as log:
        for pid in range(5):
            event = NewEvent(
                disk=HOST,
                type=EventType.RECONCILER_STOPPED,
                data={"pid": pid, "why": "a test"},
                actor="test",
            )
            log.append([event])
    return patient.root.log


def test_an_intact_log_is_fine_and_a_missing_one_too(patient: Patient, log_path: Path) -> None:
    assert "last 5 events are intact" in storage.log(patient).found
    assert Level.OK is level(storage.log, patient)
    for file in log_path.parent.glob("byre.db*"):
        file.unlink()
    assert Level.OK is level(storage.log, patient)


@pytest.mark.parametrize("seq", [2, 5])
def test_a_damaged_event_is_a_blocker(patient: Patient, log_path: Path, seq: int) -> None:
    with sqlite3.connect(log_path) as connection:
        connection.execute("DROP TRIGGER IF EXISTS events_no_update")
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE events SET actor = 'somebody' WHERE seq = ?", (seq,))
    connection.close()
    finding = storage.log(patient)
    assert Level.BLOCKER is finding.level
    assert f"event {seq}" in finding.found


def test_a_file_that_is_no_log_is_a_blocker(patient: Patient) -> None:
    write(patient.root.log, "not a database, but long enough to be looked at as one" * 20)
    assert Level.BLOCKER is level(storage.log, patient)


# --- neighbours ----------------------------------------------------------------------------------


def test_udevd_is_asked_at_its_socket(patient: Patient) -> None:
    path = patient.run / "udev/control"
    path.parent.mkdir()
    assert Level.NOTE is level(neighbours.udevd, patient)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(path))
        assert "refused" in neighbours.udevd(patient).found
        server.listen()
        assert Level.OK is level(neighbours.udevd, patient)


def test_our_rule_is_found_where_udev_looks(patient: Patient) -> None:
    assert Level.NOTE is level(neighbours.udev_rule, patient)
    path = patient.etc / "udev/rules.d" / udev.NAME
    write(path, "# an older one")
    assert "not the one of this version" in neighbours.udev_rule(patient).found
    path.write_text(udev.rules())
    assert Level.OK is level(neighbours.udev_rule, patient)


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ('devices { dir = "/dev" }', Level.WARNING),
        ('global_filter = [ "a|.*|" ]', Level.WARNING),
        ('  global_filter = [ "r|^/dev/mapper/byre-|", "r|^/dev/loop|" ]', Level.OK),
        ('  # global_filter = [ "r|.*|" ]', Level.WARNING),
        ('global_filter = [ "a|^/dev/sda|", "r|.*|" ]', Level.OK),
        ('filter = [ "r|/dev/loop|" ]', Level.WARNING),
    ],
)
def test_lvm_filters_are_read_as_lvm_reads_them(
    patient: Patient, conf: str, expected: Level
) -> None:
    write(patient.etc / "lvm/lvm.conf", conf + "\n")
    assert expected is level(neighbours.lvm, patient)


def test_a_devices_file_keeps_lvm_to_what_is_listed(patient: Patient) -> None:
    write(patient.etc / "lvm/lvm.conf", "# defaults\n")
    write(patient.etc / "lvm/devices/system.devices", "")
    assert Level.OK is level(neighbours.lvm, patient)
    write(patient.etc / "lvm/lvm.conf", "use_devicesfile = 0\n")
    assert Level.WARNING is level(neighbours.lvm, patient)


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ("defaults {\n}\n", Level.OK),
        ("defaults {\n find_multipaths greedy\n}\n", Level.NOTE),
        ('blacklist_exceptions {\n devnode "^loop"\n}\n', Level.WARNING),
    ],
)
def test_multipath_is_looked_at_where_it_is_configured(
    patient: Patient, conf: str, expected: Level
) -> None:
    assert Level.OK is level(neighbours.multipath, patient)
    write(patient.etc / "multipath.conf", conf)
    assert expected is level(neighbours.multipath, patient)


def test_few_inotify_watches_are_a_warning_with_the_numbers(patient: Patient) -> None:
    assert Level.OK is level(neighbours.inotify, patient)
    write(patient.proc / "sys/fs/inotify/max_user_watches", "100\n")
    assert "100 watches" in neighbours.inotify(patient).found
    (patient.proc / "sys/fs/inotify/max_user_watches").unlink()
    assert Level.WARNING is level(neighbours.inotify, patient)


# --- software ------------------------------------------------------------------------------------


def test_the_other_statemachine_is_a_blocker(patient: Patient) -> None:
    assert Level.OK is level(software.statemachine, patient)
    finding = software.statemachine(attrs.evolve(patient, installed=lambda _name: "2.3.4"))
    assert Level.BLOCKER is finding.level
    assert f"uninstall {clash.OTHER}" in finding.remedy


def test_an_old_sqlite_is_a_blocker(patient: Patient) -> None:
    assert Level.OK is level(software.sqlite, patient)
    assert Level.BLOCKER is level(software.sqlite, attrs.evolve(patient, sqlite=(3, 8, 1)))


# --- the command ---------------------------------------------------------------------------------


def test_the_command_answers_in_json_and_ends_with_1_on_a_blocker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = _doctor(tmp_path / "root", capsys)
    assert code == 0
    assert {"check", "level", "found", "remedy"} == set(found[0])
    code, found = _doctor(Path("/proc/self/byre"), capsys)
    assert code == 1
    assert [each["check"] for each in found if each["level"] == "blocker"] == ["state-root"]


def _doctor(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, Any]]]:
    with pytest.raises(SystemExit) as ended:
        run(["--root", str(root), "doctor", "-o", "json"])
    assert isinstance(ended.value.code, int)
    return ended.value.code, json.loads(capsys.readouterr().out)


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()

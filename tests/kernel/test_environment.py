"""The machine that the kernel tests run on is what they take it for; and what byre does without.

Without udevd, without devtmpfs, in namespaces of its own: a disk lives its whole life, or what is
missing is said by its name. `test_dropouts` has an udevd that is there and does not answer.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.cli import END_S, Child, until
from tests.kernel.containers import own_dev, own_ipc
from tests.kernel.host import Host, tool

pytestmark = pytest.mark.kernel

BOTH = ("mapper/control", "loop-control")


def test_device_mapper_control_opens() -> None:
    os.close(os.open("/dev/mapper/control", os.O_RDWR))


def test_device_mapper_has_the_snapshot_target() -> None:
    answer = subprocess.run(["dmsetup", "targets"], capture_output=True, text=True, check=True)
    assert "snapshot" in [line.split()[0] for line in answer.stdout.splitlines()]


def test_loop_devices_can_be_asked_for() -> None:
    os.close(os.open("/dev/loop-control", os.O_RDWR))


def test_udevd_answers() -> None:
    subprocess.run(["udevadm", "control", "--ping"], timeout=30, check=True)


# --- without udevd -------------------------------------------------------------------------------


@pytest.fixture
def dead_udev(host: Host) -> Iterator[None]:
    """Kill udevd for a test, and start it again; `host` has seen it come to rest before."""
    assert host.dm_names() == []
    pids = tool("pidof", "systemd-udevd").split()
    program = Path("/proc", pids[0], "exe").resolve()
    for pid in pids:
        os.kill(int(pid), signal.SIGKILL)
    until(lambda: not is_running("systemd-udevd"), "udevd is gone", timeout_s=END_S)
    yield
    # By its own name: it is a program of many names and does what it is called.
    subprocess.run(["systemd-udevd", "--daemon"], executable=program, timeout=60, check=True)
    tool("udevadm", "control", "--ping")
    tool("udevadm", "trigger", "--subsystem-match=block")
    tool("udevadm", "settle")


def is_running(name: str) -> bool:
    done = subprocess.run(["pidof", name], capture_output=True, timeout=60, check=False)
    return done.returncode == 0


@pytest.mark.usefixtures("dead_udev")
def test_a_disk_lives_when_udevd_is_dead(host: Host) -> None:
    live_a_life(host)


def live_a_life(host: Host) -> None:
    """Take a disk through its life; whoever has the root's lock does the work."""
    device = host.live("sb-1", host.make_ext4(), "--link", host.folder / "links" / "sb-1")
    number = host.record("sb-1").device_number
    host.write(node(number), 4096, b"kept")
    host.cli("pause", "sb-1", "--wait")
    until_gone(host)
    host.cli("restore", "sb-1", "--wait")
    assert host.read(node(host.record("sb-1").device_number), 4096, 4) == b"kept"
    assert str(device) == os.readlink(host.folder / "links" / "sb-1")  # noqa: PTH115
    host.cli("remove", "sb-1", "--wait")
    until_gone(host)
    host.assert_nothing_left()
    host.assert_proved()


def until_gone(host: Host) -> None:
    """Wait until udev, if it is there, has taken its own symlink away: in the host's /dev."""
    until(lambda: host.nodes() == [], "udev's symlink is gone", timeout_s=END_S)
    host.assert_nothing_in_kernel()


def node(number: str) -> Path:
    """Return the kernel's node of a dm device number, "253:4"."""
    return Path(f"/dev/dm-{number.partition(':')[2]}")


# --- in namespaces of its own --------------------------------------------------------------------


def contained(host: Host, enter: Callable[[], None]) -> Child:
    """Start a reconciler in namespaces of its own."""
    child = host.cli.fork("run", "--resync", "600", before=enter)
    ready = "reconciler started"
    until(lambda: child.is_alive and ready in child.output, ready, timeout_s=END_S)
    return child


def test_a_disk_lives_in_an_ipc_namespace_of_its_own(host: Host) -> None:
    """A cookie of udev's would be a semaphore of this namespace, which udevd never sees."""
    daemon = contained(host, own_ipc)
    live_a_life(host)
    assert daemon.terminate() == 0


def test_a_disk_lives_in_a_container_without_devtmpfs(host: Host) -> None:
    daemon = contained(host, own_dev(BOTH))
    live_a_life(host)
    device = host.live("sb-2", host.folder / "base.ext4")
    record, dev = host.record("sb-2"), Path(f"/proc/{daemon.pid}/root/dev")
    own = dev / "mapper" / device.name
    assert os.readlink(own) == f"../{node(record.device_number).name}"  # noqa: PTH115
    made = (dev / node(record.device_number).name).lstat()
    assert stat.S_ISBLK(made.st_mode)
    number = f"{os.major(made.st_rdev)}:{os.minor(made.st_rdev)}"
    assert number == record.device_number
    host.cli("remove", "sb-2", "--wait")
    assert not os.path.lexists(own)
    assert daemon.terminate() == 0


def test_a_container_without_the_control_node_says_what_is_missing(host: Host) -> None:
    base = host.make_ext4()
    words = ("create", "sb-1", "--base", base, "--driver", "dm-snapshot", "--wait")
    child = host.cli.fork(*words, before=own_dev(["loop-control"]))
    assert child.wait() == 1
    assert "/dev/mapper/control is missing" in child.output
    assert "mknod -m 600 /dev/mapper/control c 10" in child.output
    host.assert_nothing_left()
    host.cli("retry", "sb-1", "--wait")
    assert host.record("sb-1").state == "snapshotted"


def test_a_container_without_the_control_node_does_not_take_live_disks_for_lost(
    host: Host,
) -> None:
    host.live("sb-1", host.make_ext4())
    seen, seq = host.kernel_side(), host.last_seq()
    child = host.cli.fork("run", "--once", "--timeout", "2", before=own_dev(["loop-control"]))
    assert child.wait() == 5, child.output
    assert "/dev/mapper/control" in child.output
    assert host.story("sb-1", seq) == []
    assert seen == host.kernel_side()
    host.cli("run", "--once")
    assert host.story("sb-1", seq) == []


def test_a_container_with_neither_node_offers_plain_files_and_says_why(host: Host) -> None:
    words = ("create", "sb-1", "--base", host.make_ext4(), "--wait")
    child = host.cli.fork(*words, before=own_dev([]))
    assert child.wait() == 0
    record = host.record("sb-1")
    assert (record.driver, record.device) == ("clone", record.cow_path)
    assert "/dev/mapper/control is missing" in record.driver_reason
    host.assert_nothing_in_kernel()

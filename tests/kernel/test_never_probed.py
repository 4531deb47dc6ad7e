"""The host never looks into a sandbox's disk: no program is started, no block is read for it.

By the kernel's own tracepoints and read counters. That these eyes see something is shown without
the rules: udevd does read the same devices then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

import pytest

from reconciler import udev
from reconciler.bench.kerneltrace import TRACEFS, Bio, Trace, tracing
from statemachine.observed import DeviceNumber
from tests.kernel.host import Host, tool

pytestmark = pytest.mark.kernel

RULES = Path("/run/udev/rules.d") / udev.NAME


@pytest.fixture(autouse=True)
def _tracefs() -> Iterator[None]:
    """Have tracefs mounted, as systemd does on a host."""
    is_ours = not (TRACEFS / "instances").is_dir()
    if is_ours:
        tool("mount", "-t", "tracefs", "tracefs", TRACEFS)
    yield
    if is_ours:
        tool("umount", TRACEFS)


@pytest.fixture
def ruled() -> Iterator[None]:
    """The guest's udevd with our rules, for one test."""
    RULES.parent.mkdir(parents=True, exist_ok=True)
    RULES.write_text(udev.rules())
    tool("udevadm", "control", "--reload")
    yield
    RULES.unlink()
    tool("udevadm", "control", "--reload")


@contextmanager
def watched() -> Iterator[Trace]:
    """Trace from udev's rest on."""
    tool("udevadm", "settle")
    with tracing() as trace:
        yield trace


def reads_of(trace: Trace, *devices: DeviceNumber) -> list[Bio]:
    numbers = {(device.major, device.minor) for device in devices}
    return [bio for bio in trace.read().bios if bio.is_read and bio.device in numbers]


def counted_reads(node: str) -> int:
    """Return how many reads of a block device were finished; Documentation/block/stat.rst."""
    return int(Path("/sys/block", node, "stat").read_text().split()[0])


def devices_of(host: Host) -> tuple[DeviceNumber, DeviceNumber]:
    """Return the numbers of the device and of the loop of its CoW file."""
    device = host.kernel.dm(host.device("sb-1").name)
    assert device is not None
    assert device.table is not None
    return device.device, device.table.cow


def by_udev(bios: list[Bio]) -> list[Bio]:
    return [bio for bio in bios if "udev" in bio.task]


@pytest.mark.usefixtures("ruled")
def test_no_program_is_started_in_a_whole_life(host: Host) -> None:
    host.live(
        "other", host.make_ext4("other.ext4")
    )  # what is done once in a process is done by now
    host.cli("remove", "other", "--wait")
    base = host.make_ext4()
    with watched() as trace:
        host.live("sb-1", base)
        for step in ("pause", "restore", "remove"):
            # An event that is handled when its device has gone makes 55-dm.rules ask `dmsetup`.
            tool("udevadm", "settle")
            host.cli(step, "sb-1", "--wait")
        tool("udevadm", "settle")
        started = {PurePath(path).name for path in trace.read().programs}
    assert started == {"udevadm"}  # which this test itself starts


@pytest.mark.usefixtures("ruled")
def test_nothing_of_the_device_is_read_and_its_cow_by_nobody_but_dm_snapshot(host: Host) -> None:
    base = host.make_ext4()
    with watched() as trace:
        node = host.live("sb-1", base).resolve()
        device, cow = devices_of(host)
        for each in (node, f"/dev/loop{cow.minor}"):
            tool("udevadm", "trigger", "--settle", each)
        assert counted_reads(node.name) == 0
        assert (reads_of(trace, device), by_udev(reads_of(trace, cow))) == ([], [])
        node.read_bytes()
        assert len(reads_of(trace, device)) > 0
    assert counted_reads(node.name) > 0


@pytest.mark.usefixtures("ruled")
def test_what_is_read_of_a_cow_is_what_dm_snapshot_reads_to_go_live(host: Host) -> None:
    host.live("sb-1", host.make_ext4())
    host.cli("pause", "sb-1", "--wait")
    tool("udevadm", "control", "--stop-exec-queue")
    try:
        with tracing() as trace:
            host.cli("restore", "sb-1", "--wait")
            _, cow = devices_of(host)
            alone = sum(bio.sectors for bio in reads_of(trace, cow))
    finally:
        tool("udevadm", "control", "--start-exec-queue")
    host.cli("pause", "sb-1", "--wait")
    with watched() as trace:
        host.cli("restore", "sb-1", "--wait")
        _, cow = devices_of(host)
        tool("udevadm", "trigger", "--settle", f"/dev/loop{cow.minor}")
        with_udev = sum(bio.sectors for bio in reads_of(trace, cow))
    assert alone == with_udev > 0


def test_without_the_rules_udev_reads_the_cow_and_these_eyes_see_it(host: Host) -> None:
    base = host.make_ext4()
    with watched() as trace:
        host.live("sb-1", base)
        tool("udevadm", "settle")
        _, cow = devices_of(host)
        tool("udevadm", "trigger", "--settle", f"/dev/loop{cow.minor}")
        assert by_udev(reads_of(trace, cow)) != []


def test_a_program_that_is_started_is_seen(host: Host) -> None:
    del host
    with watched() as trace:
        tool("true")
        names = {PurePath(path).name for path in trace.read().programs}
    assert "true" in names

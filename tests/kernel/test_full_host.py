"""A CoW that fills, and a host that fills: grown or frozen in time, on the real kernel.

The file system of the root is a small ext4 on a loop of its own, with a file on it that can be
given up. The guest is a thread with the disk's device open. Sizes are small and it is slow, as an
emulated CPU copies chunks slowly, and a guard on it looks slowly.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from statemachine.observed import DmDevice, SnapshotHealth
from tests.kernel.cli import until
from tests.kernel.host import MIB, Host, tool

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

BASE_BYTES = 64 * MIB
WRITTEN = 16 * MIB
"""More than fits before room is given back, and less than fits after it."""
BLOCK = 64 * 1024
WAIT_S = 120.0


@pytest.fixture
def small(host: Host) -> Iterator[Host]:
    """A host whose root is on a file system of 64 MiB, of which 14 are free."""
    image = host.make_file("small.ext4", 64 * MIB)
    tool("mke2fs", "-q", "-t", "ext4", "-m", "0", image)
    host.root.mkdir(mode=0o700)
    tool("mount", "-o", "loop", image, host.root)
    host.root.chmod(0o700)
    free = os.statvfs(host.root)
    tool("fallocate", "-l", free.f_bavail * free.f_frsize - 14 * MIB, host.root / "filler")
    (host.root / "config.toml").write_text('low_space = "12MiB"\ncritical_space = "6MiB"\n')
    yield host
    (host.root / "filler").unlink(missing_ok=True)
    host.cli.end_children()
    for name in ("sb-1", "sb-2"):
        if host.cli("get", name, expect=None).code == 0:
            host.cli("remove", name, "--wait", expect=None)
    tool("umount", host.root)


@pytest.fixture
def pattern(host: Host) -> Path:
    """What the guest writes: random, so that nothing of it can be there by chance."""
    path = host.folder / "pattern"
    path.write_bytes(os.urandom(MIB) * (WRITTEN // MIB))
    return path


class Guest(threading.Thread):
    """Writes the pattern to a device past every cache, at some 3 MB/s; errors are kept."""

    def __init__(self, pattern: Path, device: Path) -> None:
        super().__init__(daemon=True)
        self.error: OSError | None = None
        self._pattern = pattern
        self._device = os.open(device, os.O_WRONLY | os.O_DIRECT)

    def run(self) -> None:
        try:
            with self._pattern.open("rb") as file, mmap.mmap(-1, BLOCK) as aligned:
                for offset in range(0, WRITTEN, BLOCK):
                    aligned[:] = file.read(BLOCK)
                    os.pwritev(self._device, [aligned], offset)
                    time.sleep(0.02)
            os.fsync(self._device)
        except OSError as error:
            self.error = error
        finally:
            os.close(self._device)


@contextmanager
def guest(pattern: Path, device: Path) -> Iterator[Guest]:
    """Have a guest that writes; it has ended when this has."""
    writer = Guest(pattern, device)
    writer.start()
    yield writer
    writer.join(WAIT_S)
    assert not writer.is_alive(), "the guest waits still"


def assert_holds(device: Path, pattern: Path) -> None:
    """Check that the device begins with the pattern, byte for byte."""
    tool("cmp", "-n", WRITTEN, device, pattern)


def live_device(host: Host, name: str = "sb-1") -> DmDevice:
    """Return what the kernel has of a disk."""
    found = host.kernel.dm(host.device(name).name)
    assert found is not None
    return found


def health(host: Host) -> SnapshotHealth:
    status = live_device(host).status
    assert status is not None
    return status.health


def test_a_guest_on_a_full_host_is_stalled_and_goes_on(small: Host, pattern: Path) -> None:
    host = small
    host.cli.daemon()
    device = host.live("sb-1", host.make_file("base", BASE_BYTES))
    with guest(pattern, device) as writer:
        until(lambda: host.record("sb-1").frozen is not None, "it is frozen", timeout_s=WAIT_S)
        assert live_device(host).suspended
        assert writer.is_alive(), "the guest waits, it does not fail"
        assert health(host) is SnapshotHealth.VALID
        words = ("--base", host.folder / "base", "--wait", "--timeout", 3)
        host.cli("create", "sb-2", *words, expect=5)
        failure = host.record("sb-2").failure
        assert failure is not None
        assert failure.kind == "no-space"
        [disk] = host.cli("get", "sb-1", "-o", "json").json
        assert "Frozen" in [each["type"] for each in disk["conditions"]]

        (host.root / "filler").unlink()
        until(lambda: host.record("sb-1").frozen is None, "it is thawed", timeout_s=WAIT_S)
    assert writer.error is None
    assert health(host) is SnapshotHealth.VALID
    assert_holds(device, pattern)
    story = [event.type for event in host.history("sb-1")]
    assert story.index("disk.frozen") < story.index("disk.thawed")
    host.until_settled("sb-2", "snapshotted", timeout_s=WAIT_S)
    host.assert_proved()


def capacity(host: Host) -> int:
    """Return how large the exception store is, by the kernel."""
    status = live_device(host).status
    assert status is not None
    return status.total.to_bytes().count


def test_the_same_without_the_guard_ends_invalid(small: Host, pattern: Path) -> None:
    host = small
    device = host.live("sb-1", host.make_file("base", BASE_BYTES))
    with guest(pattern, device) as writer:
        pass
    assert writer.error is not None
    assert writer.error.errno == errno.EIO
    assert health(host) is SnapshotHealth.INVALID
    (host.root / "filler").unlink()  # byre's own log needs some room as well
    answer = host.cli("run", "--once", expect=1)
    assert "copy" in answer.err, "what can still be done"
    fault = host.record("sb-1").fault
    assert fault is not None
    assert fault.kind == "snapshot-invalid"


def test_a_small_cow_is_grown_under_the_device_that_a_guest_has_open(
    host: Host, pattern: Path
) -> None:
    host.cli.daemon()
    device = host.live("sb-1", host.make_file("base", WRITTEN), "--cow-size", "4MiB")
    number = live_device(host).device
    guest_handle = host.open(device, write=True)
    tool("dd", f"if={pattern}", f"of={device}", "bs=64k", "count=1", "oflag=direct")
    until(lambda: capacity(host) > 4 * MIB, "its CoW was grown", timeout_s=WAIT_S)
    tool("dd", f"if={pattern}", f"of={device}", "bs=64k", "oflag=direct")
    guest_handle.close()
    assert health(host) is SnapshotHealth.VALID
    assert number == live_device(host).device
    assert_holds(device, pattern)
    grown = [event.data for event in host.history("sb-1") if event.type == "cow.grown"]
    assert grown[0]["from_bytes"] == 4 * MIB
    [disk] = host.cli("get", "sb-1", "-o", "json").json
    assert disk["cow"]["capacity_bytes"] == grown[-1]["to_bytes"]
    until(
        lambda: "cow.threshold_crossed" in [event.type for event in host.history("sb-1")],
        "a level is told of",
    )


def test_a_cow_at_its_bound_is_frozen_until_the_bound_is_raised(host: Host, pattern: Path) -> None:
    host.cli.daemon()
    base = host.make_file("base", WRITTEN)
    device = host.live("sb-1", base, "--cow-size", "4MiB", "--cow-max", "12MiB")
    with guest(pattern, device) as writer:
        until(lambda: host.record("sb-1").frozen is not None, "it is frozen", timeout_s=WAIT_S)
        assert writer.is_alive()
        host.cli("create", "sb-1", "--base", base, "--cow-size", "4MiB", "--cow-max", "1GiB")
    assert writer.error is None
    assert_holds(device, pattern)
    until(lambda: host.record("sb-1").frozen is None, "sb-1 is thawed")
    assert health(host) is SnapshotHealth.VALID


def test_a_lost_snapshot_is_faulted_at_once(host: Host) -> None:
    """Its CoW is cut short behind the reconciler's back; the next exception finds no room."""
    daemon = host.cli.daemon()
    device = host.live("sb-1", host.make_file("base", 8 * MIB))
    daemon.signal(signal.SIGSTOP)
    [cow] = (host.root / "cow").iterdir()
    os.truncate(cow, 8192)
    [loop] = host.loops_on(cow)
    tool("losetup", "--set-capacity", loop.path)
    tool("dd", "if=/dev/zero", f"of={device}", "bs=4k", "count=8", "oflag=direct", code=1)
    assert health(host) is SnapshotHealth.INVALID
    daemon.signal(signal.SIGCONT)
    until(lambda: host.record("sb-1").fault is not None, "sb-1 is faulted")
    fault = host.record("sb-1").fault
    assert fault is not None
    # By the device, or by the header of its file if the look began before the loss.
    assert fault.kind in ("snapshot-invalid", "cow-invalid")

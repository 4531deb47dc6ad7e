"""Taking over on the real device-mapper: what wrenn, arcbox and ignite build, as they build it.

Their devices are made by the programs that they call, with the arguments that they give them;
`reconciler.peers` says where in their source that is.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.cli import until
from tests.kernel.host import MIB, Host, digest, tool

pytestmark = pytest.mark.kernel

BLOCK = 4096
DATA = 4 * MIB


class Writer(threading.Thread):
    """A user of a device: writes a number to it again and again, each time to the disk."""

    def __init__(self, device: Path) -> None:
        super().__init__(daemon=True)
        self._descriptor = os.open(device, os.O_RDWR)
        self._over = threading.Event()
        self.written = 0
        self.error: OSError | None = None

    def run(self) -> None:
        """Write until told to stop."""
        try:
            while not self._over.is_set():
                os.pwrite(self._descriptor, b"%d" % (self.written + 1), DATA)
                os.fsync(self._descriptor)
                self.written += 1
        except OSError as error:
            self.error = error

    def goes_on(self) -> bool:
        """Wait for one more write."""
        before = self.written
        until(lambda: self.written > before or self.error is not None, "a write", timeout_s=60)
        return self.error is None

    def stop(self) -> int:
        """End it and close the device; returns the last number."""
        self._over.set()
        self.join()
        os.close(self._descriptor)
        return self.written


def wrenn(folder: Path, image: Path) -> str:
    """CreateSnapshot of internal/devicemapper/devicemapper.go."""
    cow = sparse(folder / "sandboxes" / "cl-1a2b" / "rootfs.cow", image)
    origin = tool("losetup", "--read-only", "--find", "--show", image)
    below = tool("losetup", "--find", "--show", cow)
    sectors = image.stat().st_size // 512
    table = f"0 {sectors} snapshot {origin} {below} P 8"
    tool("dmsetup", "create", "wrenn-cl-1a2b", "--table", table)
    return "wrenn-cl-1a2b"


def arcbox(folder: Path, image: Path) -> str:
    """CowManager::setup of engine/arcbox-snapshot/src/snapshot_cow.rs.

    It calls a busybox whose losetup knows --show; Debian's does not.
    """
    cow = sparse(folder / "cow" / "arcbox-cow-550e8400-e29b.img", image)
    origin = tool("losetup", "-r", "-f", "--show", image)
    below = tool("losetup", "-f", "--show", cow)
    sectors = tool("busybox", "blockdev", "--getsz", origin)
    table = f"0 {sectors} snapshot {origin} {below} P 8"
    tool("dmsetup", "create", "arcbox-snap-550e8400-e29b", "--table", table)
    return "arcbox-snap-550e8400-e29b"


def ignite(folder: Path, image: Path) -> str:
    """ActivateSnapshot of pkg/dmlegacy/snapshot.go, with an overlay as large as the image.

    It detaches both loops at once, which sets their autoclear.
    """
    cow = sparse(folder / "vm" / "8c3a5d7e" / "overlay.dm", image)
    origin = tool("losetup", "--read-only", "--find", "--show", image)
    below = tool("losetup", "--find", "--show", cow)
    table = f"0 {image.stat().st_size // 512} snapshot {origin} {below} P 8"
    command = ["dmsetup", "create", "--verifyudev", "ignite-8c3a5d7e"]
    subprocess.run(command, input=table, text=True, check=True)
    for loop in (origin, below):
        tool("losetup", "-d", loop)
    return "ignite-8c3a5d7e"


def sparse(path: Path, image: Path) -> Path:
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(image.stat().st_size)
    return path


@pytest.fixture
def made() -> Iterator[list[str]]:
    """Names of devices to be removed in the end, whatever a test has come to."""
    names: list[str] = []
    yield names
    for name in names:
        subprocess.run(["dmsetup", "remove", "--retry", name], capture_output=True, check=False)
    tool("udevadm", "settle")


@pytest.mark.parametrize("build", [wrenn, arcbox, ignite])
def test_a_disk_is_taken_over_under_its_user(
    host: Host, made: list[str], build: Callable[[Path, Path], str]
) -> None:
    peer, folder = build.__name__, host.folder / build.__name__
    image = host.make_ext4()
    made.append(build(folder, image))
    [name] = made
    device = Path("/dev/mapper", name)
    id_ = name.removeprefix("arcbox-snap-").removeprefix(f"{peer}-")
    writer = Writer(device)
    writer.start()
    assert writer.goes_on()

    [shown] = host.cli("import", peer, "--dry-run", "--folder", folder, "-o", "json").json
    assert (shown["name"], shown["table"], shown["base"]) == (name, "P 8", str(image))
    assert (shown["open_count"], shown["can"], shown["cow"]) == (1, True, str(cow_below(folder)))
    assert host.cows() == []

    host.cli("import", peer, "--folder", folder, "--reason", "we move to byre")
    assert writer.goes_on()
    record = host.record(id_)
    assert (record.state, record.device) == ("restored", str(device))
    assert tool("dmsetup", "info", "-c", "--noheadings", "-o", "uuid", name) == (
        f"BYRE-{record.id}-1"
    )
    assert host.cows() == [f"{record.id}-1.cow"]
    assert cow_below(folder) is None
    # A second time there is nothing to do, and a running reconciler finds nothing to do either.
    seq = host.last_seq()
    host.cli("import", peer, "--folder", folder)
    host.cli("run", "--once")
    assert "transition.started" not in host.types_after(seq)
    last = writer.stop()
    assert writer.error is None

    before = digest(device)
    host.cli("pause", id_, "--wait")
    assert name not in tool("dmsetup", "ls")
    # Their udev rules made the name's symlink: a late event takes away the one of the next life.
    tool("udevadm", "settle")
    host.cli("restore", id_, "--wait")
    assert before == digest(device)
    with device.open("rb") as file:
        file.seek(DATA)
        assert file.read(BLOCK).startswith(b"%d" % last)
    host.assert_proved()
    host.cli("remove", id_, "--wait")
    assert host.cows() == []
    # The base's, which wrenn and arcbox keep for their other disks; byre's own goes in its time.
    theirs = 0 if build is ignite else 1
    until(lambda: len(host.loops()) == theirs, "byre's own loops are gone", timeout_s=60)
    for loop in host.loops():
        assert loop.backing_path == str(image)
        tool("losetup", "-d", loop.path)


def cow_below(folder: Path) -> Path | None:
    """Return the one CoW file that a program has."""
    return next((path for path in folder.rglob("*") if path.is_file()), None)


def test_what_cannot_be_taken_over_is_told_and_stays(host: Host, made: list[str]) -> None:
    """Exceptions in memory alone; and ignite's device over an image with zeros behind it."""
    image, folder = host.make_ext4(), host.folder / "theirs"
    origin = tool("losetup", "--read-only", "--find", "--show", image)
    sectors = image.stat().st_size // 512
    cows = [sparse(folder / "vm" / name / "overlay.dm", image) for name in ("n1", "z1")]
    below = [tool("losetup", "--find", "--show", cow) for cow in cows]
    tables = {
        "ignite-n1": f"0 {sectors} snapshot {origin} {below[0]} N 8",
        "ignite-z1-base": f"0 {sectors} linear {origin} 0\n{sectors} {sectors} zero",
        "ignite-z1": f"0 {2 * sectors} snapshot /dev/mapper/ignite-z1-base {below[1]} P 8",
    }
    for name, table in tables.items():
        made.insert(0, name)
        subprocess.run(["dmsetup", "create", name], input=table, text=True, check=True)
    found = host.cli("import", "ignite", "--dry-run", "--folder", folder, "-o", "json").json
    why = {each["name"]: each["why_not"] for each in found}
    assert set(why) == {"ignite-n1", "ignite-z1"}
    assert "in memory alone (N)" in why["ignite-n1"]
    assert "not the loop of an image" in why["ignite-z1"]
    answer = host.cli("import", "ignite", "--folder", folder, expect=4)
    assert "cannot be taken over" in answer.err
    assert host.cows() == []
    assert set(tables) <= {line.split()[0] for line in tool("dmsetup", "ls").splitlines()}
    for name in made:
        tool("dmsetup", "remove", "--retry", name)
    made.clear()
    for loop in (origin, *below):
        tool("losetup", "-d", loop)

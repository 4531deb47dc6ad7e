"""Those who do not know byre: *exec*, the programs that others start, and *floor*, bare ioctls.

Both make the very dm-snapshot that byre makes, on a base loop that is there already, and neither
records anything, checks anything or syncs a file. `exec` waits for udev, as its programs do.
May be imported by the package only.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from reconciler.bench import programs
from reconciler.bench.results import BenchFailed
from reconciler.bench.stopwatch import insist
from reconciler.bench.yard import BASE_BYTES, Yard
from reconciler.drivers.cow_room import cow_size
from reconciler.kernel.dm import DeviceMapper
from reconciler.kernel.loopdev import LoopDevices
from statemachine.errors import TransientError
from statemachine.names import UUID_PREFIX
from statemachine.observed import Loop, SnapshotTable

MARKER: Final = "BYREBENCH"
_SECTORS: Final = BASE_BYTES.sectors_exact()


class Contestant(Protocol):
    """Somebody who can do the whole life of a disk."""

    name: str

    def create(self, disk: str) -> None:
        """Make a disk, live when this returns."""

    def pause(self, disk: str) -> None:
        """Take its device and its loop away and keep its data."""

    def restore(self, disk: str) -> None:
        """Make it live again, on the same data."""

    def remove(self, disk: str) -> None:
        """Take a live disk away, with its data."""


def _make_sparse(path: Path) -> None:
    with path.open("xb") as file:
        file.truncate(cow_size(BASE_BYTES).count)


class Exec:
    """`losetup` and `dmsetup`, one process after the other; what peers do for each disk."""

    name = "exec"

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._loops: dict[str, str] = {}
        base = str(yard.base)
        self._base = programs.run("losetup", "--find", "--show", "--read-only", base).strip()

    def create(self, disk: str) -> None:
        """A sparse file, then as `restore`."""
        _make_sparse(self._cow(disk))
        self.restore(disk)

    def restore(self, disk: str) -> None:
        """A loop on the file, and the device on both."""
        loop = programs.run("losetup", "--find", "--show", str(self._cow(disk))).strip()
        self._loops[disk] = loop
        table = f"0 {_SECTORS.count} snapshot {self._base} {loop} P 8"
        name = self._device(disk)
        # A UUID, so that whoever clears the yard removes this very device.
        programs.run("dmsetup", "create", name, "--uuid", f"{MARKER}-{name}", "--table", table)

    def pause(self, disk: str) -> None:
        """The device first, then the loop."""
        insist(lambda: _again(lambda: programs.run("dmsetup", "remove", self._device(disk))))
        programs.run("losetup", "-d", self._loops.pop(disk))

    def remove(self, disk: str) -> None:
        """The same, and the file."""
        self.pause(disk)
        self._cow(disk).unlink()

    def _cow(self, disk: str) -> Path:
        return self._yard.folder / f"exec-{disk}.cow"

    def _device(self, disk: str) -> str:
        return f"{self._yard.prefix}exec-{disk}"


class Floor:
    """The ioctls that byre makes for a transition, and nothing else.

    Its files and UUIDs look like byre's to the udev rules, so that these serve both or neither.
    """

    name = "floor"

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._loops = LoopDevices(dev=Path("/dev"), sys=Path("/sys"))
        self._dm = DeviceMapper(control=Path("/dev/mapper/control"))
        self._base = self._attach(yard.base, read_only=True)

    def create(self, disk: str) -> None:
        """A sparse file, then as `restore`."""
        _make_sparse(self._cow(disk))
        self.restore(disk)

    def restore(self, disk: str) -> None:
        """Loop, device, table, resume, and the loop handed over to the device."""
        cow, uuid = self._attach(self._cow(disk), read_only=False), self._uuid(disk)
        self._dm.create(self._device(disk), uuid)
        self._dm.load(
            uuid, SnapshotTable(length=_SECTORS, origin=self._base.device, cow=cow.device)
        )
        self._dm.resume(uuid)
        self._loops.set_autoclear(cow)

    def pause(self, disk: str) -> None:
        """Remove the device; the kernel detaches the loop with it."""
        insist(lambda: _busy_is_transient(lambda: self._dm.remove(self._uuid(disk))))

    def remove(self, disk: str) -> None:
        """The same, and the file."""
        self.pause(disk)
        self._cow(disk).unlink()

    def _attach(self, path: Path, *, read_only: bool) -> Loop:
        with path.open("rb" if read_only else "r+b") as file:
            return self._loops.attach(
                file.fileno(), path=str(path), marker=MARKER, read_only=read_only
            )

    def _cow(self, disk: str) -> Path:
        folder = self._yard.folder / "floor/cow"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{disk.encode().hex():0>32.32}-1.cow"

    def _device(self, disk: str) -> str:
        return f"{self._yard.prefix}floor-{disk}"

    def _uuid(self, disk: str) -> str:
        return f"{UUID_PREFIX}bench-{self._device(disk)}"


def _again(change: Callable[[], object]) -> None:
    """Make what a program refused worth another try: its exit code does not say why."""
    try:
        change()
    except BenchFailed as error:
        raise TransientError(error.message, errno=errno.EBUSY, hint=error.hint) from error


def _busy_is_transient(change: Callable[[], object]) -> None:
    try:
        change()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise TransientError(str(error), errno=error.errno) from error

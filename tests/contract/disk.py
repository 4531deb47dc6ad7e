"""Whole disks for the contract suite, made step by step through the port, and patience.

On a real host udev looks into new devices, so what needs nobody to have a device open is tried
for a while (`patiently`), and what happens a little later is waited for (`eventually`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import attrs

from reconciler.kernel.port import Kernel
from statemachine.errors import TransientError
from statemachine.names import DmUuid
from statemachine.observed import DeviceNumber, DmDevice, Loop, SnapshotStatus, SnapshotTable
from statemachine.units import Bytes, Sectors
from tests.contract.world import World

KIB = 1024
MIB = 1024 * KIB
CHUNK = 4 * KIB
_PATIENCE_S = 10.0
_PAUSE_S = 0.05
_Result = TypeVar("_Result")


def patiently(change: Callable[[], _Result]) -> _Result:
    """Make a change, again while something is busy, for ten seconds at most."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return change()
        except TransientError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_S)


def eventually(question: Callable[[], bool]) -> bool:
    """Ask until the answer is yes, for ten seconds at most; returns the last answer."""
    deadline = time.monotonic() + _PATIENCE_S
    while not question():
        if time.monotonic() > deadline:
            return question()
        time.sleep(_PAUSE_S)
    return True


def new_uuid(generation: int = 1) -> str:
    """Return a UUID such as byre gives, of a disk that nobody else has."""
    return str(DmUuid(uuid.uuid4().hex, generation))


@attrs.frozen(kw_only=True)
class Disk:
    """What belongs to one dm-snapshot."""

    kernel: Kernel
    name: str
    uuid: str
    base: Path
    cow: Path
    base_loop: Loop
    cow_loop: Loop
    length: Sectors

    @property
    def table(self) -> SnapshotTable:
        """The table to load."""
        return table(self.length, self.base_loop, self.cow_loop)

    @property
    def node(self) -> Path:
        """The device to read and write; there since a table was loaded."""
        return Path(self.observed.node)

    @property
    def observed(self) -> DmDevice:
        """What the kernel shows of the device; it must exist."""
        found = self.kernel.dm(self.name)
        assert found is not None, self.name
        return found

    @property
    def status(self) -> SnapshotStatus:
        """The status of its snapshot; it must have a live table."""
        status = self.observed.status
        assert status is not None, self.name
        return status

    @property
    def chunks(self) -> tuple[int, int]:
        """Its used and metadata chunks."""
        return self.status.used.count // 8, self.status.metadata.count // 8

    def create(self) -> DeviceNumber:
        """Make the half-made device."""
        return self.kernel.dm_create(self.name, self.uuid)

    def load(self) -> None:
        """Load its table."""
        self.kernel.dm_load(self.uuid, self.table)

    def resume(self) -> bool:
        """Make it live."""
        return self.kernel.dm_resume(self.uuid)

    def up(self) -> Disk:
        """Make the device, from nothing to live."""
        self.create()
        self.load()
        self.resume()
        return self

    def remove(self) -> bool:
        """Remove the dm device, however long udev looks into it."""
        return patiently(lambda: self.kernel.dm_remove(self.name, self.uuid))


@attrs.frozen
class Lab:
    """Makes things in a world."""

    world: World

    @property
    def kernel(self) -> Kernel:
        """The kernel of the world."""
        return self.world.kernel

    def file(self, name: str, size: int, content: bytes = b"") -> Path:
        """Make a file with content at its beginning."""
        path = self.world.make_file(name, size)
        if content:
            self.world.write(path, 0, content)
        return path

    def delete(self, path: Path) -> None:
        """Delete a file."""
        found = self.kernel.identify(path)
        assert found is not None
        self.kernel.remove_file(path, found)

    def attach(self, path: Path, *, marker: str = "BYRE-test", read_only: bool = False) -> Loop:
        """Put a loop on a file."""
        expected = self.kernel.identify(path, follow=True)
        assert expected is not None
        return self.kernel.loop_attach(path, expected, marker=marker, read_only=read_only)

    def detach(self, loop: Loop) -> bool:
        """Detach a loop, however long udev looks into it."""
        return patiently(lambda: self.kernel.loop_detach(loop))

    def disk(
        self,
        label: str = "disk",
        *,
        origin: int = MIB,
        cow: int = 2 * MIB,
        content: bytes = b"",
        header: bytes = b"",
    ) -> Disk:
        """Make base, CoW file and both loops of a disk; its device is made by `Disk.up`.

        Args:
            label: tells this disk from others.
            origin: bytes of the base.
            cow: bytes of the CoW file.
            content: the first bytes of the base.
            header: the first bytes of the CoW file.
        """
        base = self.file(f"{label}.base", origin, content)
        file = self.file(f"{label}.cow", cow, header)
        return Disk(
            kernel=self.kernel,
            name=f"{self.world.prefix}{label}",
            uuid=new_uuid(),
            base=base,
            cow=file,
            base_loop=self.attach(base, read_only=True),
            cow_loop=self.attach(file),
            length=Bytes(origin).sectors_exact(),
        )

    def other(self, disk: Disk, label: str) -> Disk:
        """Return a disk of another name and UUID on the same two loops."""
        return attrs.evolve(disk, name=f"{self.world.prefix}{label}", uuid=new_uuid())


def table(length: Sectors, origin: Loop, cow: Loop) -> SnapshotTable:
    """Return the table of a snapshot on two loops."""
    return SnapshotTable(length=length, origin=origin.device, cow=cow.device)

"""Things on a simulated host that carry byre's identity and that no log knows."""

from __future__ import annotations

import struct
from pathlib import Path

from reconciler.kernel.sim import SimKernel
from statemachine.head import HEAD_NAME
from statemachine.observed import Loop, SnapshotTable
from statemachine.units import Sectors
from tests.unit.builders import BASE, MIB, Stage

STRANGER = f"{'ab' * 16}-1"
UUID = f"BYRE-{STRANGER}"


def add_file(stage: Stage, name: str) -> Path:
    return stage.kernel.make_file(stage.byre.root.cows / name, 2 * MIB)


def add_loop(stage: Stage, path: Path, marker: str, *, read_only: bool = False) -> Loop:
    file = stage.kernel.identify(path)
    assert file is not None
    return stage.kernel.loop_attach(path, file, marker=marker, read_only=read_only)


def add_device(stage: Stage, name: str, cow: Path, uuid: str = UUID) -> None:
    """Make a live snapshot over the base as byre would, for a disk that no log knows."""
    bases = [loop for loop in stage.kernel.loops() if loop.marker.startswith("BYRE-base-")]
    origin = (bases or [add_loop(stage, BASE, "BYRE-base-ffffffffffffffff", read_only=True)])[0]
    table = SnapshotTable(
        length=Sectors(MIB // 512), origin=origin.device, cow=add_loop(stage, cow, uuid).device
    )
    number = stage.kernel.dm_create(name, uuid)
    stage.kernel.dm_load(uuid, table)
    stage.kernel.dm_resume(uuid)
    stage.kernel.put_link(Path("/dev/mapper") / name, f"../dm-{number.minor}", replaces=None)


def drop_the_log(stage: Stage) -> None:
    """Close a stage and delete its log, with the note of how far it went: a person's word."""
    stage.close()
    for file in [*stage.root.glob("byre.db*"), stage.root / HEAD_NAME]:
        file.unlink()


def add_store(stage: Stage, name: str) -> Path:
    """Make a CoW file with a valid store without exceptions: struct disk_header, 8 sectors."""
    path = add_file(stage, name)
    stage.kernel.write(path, 0, b"SnAp" + struct.pack("<III", 1, 1, 8))
    return path


def add_foreign_snapshot(kernel: SimKernel, name: str, cow: Path) -> None:
    """Make a live snapshot over the base as losetup and dmsetup do: no UUID, no marker of ours."""
    mapper = kernel.host.mapper
    bases = [loop.number for loop in kernel.loops() if loop.backing_path == str(BASE)]
    origin = kernel.loop(bases[0] if bases else kernel.add_foreign_loop(BASE, read_only=True))
    below = kernel.loop(kernel.add_foreign_loop(kernel.make_file(cow, MIB)))
    assert origin is not None
    assert below is not None
    device = mapper.create(name, "")
    length = Sectors(MIB // 512)
    mapper.load(device, SnapshotTable(length=length, origin=origin.device, cow=below.device))
    mapper.resume(device)
    kernel.put_link(Path("/dev/mapper") / name, f"../{device.sysname}", replaces=None)

"""A live disk on a bare simulated kernel, by port calls alone."""

from __future__ import annotations

from pathlib import Path

from reconciler.kernel.sim import SimKernel
from statemachine.observed import Loop, SnapshotTable
from statemachine.units import Bytes, Sectors

UUID = "BYRE-0123456789abcdef0123456789abcdef-1"
BASE, COW = Path("/srv/base"), Path("/var/cow")
CHUNK = 4096


def attach(sim: SimKernel, path: Path, *, read_only: bool = False) -> Loop:
    identity = sim.identify(path)
    assert identity is not None
    return sim.loop_attach(path, identity, marker="BYRE-test", read_only=read_only)


def disk(sim: SimKernel, name: str = "sb-1") -> Path:
    """Make a live disk; returns its node."""
    if sim.identify(BASE) is None:
        sim.make_file(BASE, Bytes(1 << 20), b"base")
    if sim.identify(COW) is None:
        sim.make_file(COW, Bytes(2 << 20))
    origin, cow = attach(sim, BASE, read_only=True), attach(sim, COW)
    table = SnapshotTable(length=Sectors(2048), origin=origin.device, cow=cow.device)
    number = sim.dm_create(name, UUID)
    sim.dm_load(UUID, table)
    sim.dm_resume(UUID)
    return Path(f"/dev/dm-{number.minor}")

"""Every test of the contract runs in two worlds: in memory always, on a real kernel in the VM.

`real` carries the mark `kernel`, so it is chosen by `just test-vm` only.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.disk import Lab
from tests.contract.sim_world import SimWorld
from tests.contract.world import World

WORLDS = ["sim", pytest.param("real", marks=pytest.mark.kernel)]
SMALL_ROOM = 256 * 1024


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world with room enough."""
    made = SimWorld() if request.param == "sim" else real_world()
    yield made
    made.cleanup()


@pytest.fixture(params=WORLDS)
def small_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world whose file system has room for 256 KiB."""
    with ExitStack() as stack:
        if request.param == "sim":
            made: World = SimWorld(SMALL_ROOM)
        else:
            made = real_world(mounted(tmp_path, stack))
        yield made
        made.cleanup()


@pytest.fixture
def lab(world: World) -> Lab:
    """The helper that makes whole disks in a world."""
    return Lab(world)


@pytest.fixture
def small_lab(small_world: World) -> Lab:
    """The same in a small world."""
    return Lab(small_world)


def real_world(parent: Path = Path("/dev/shm")) -> World:
    """Make the real world; imported late, as it needs Linux and root."""
    from tests.contract.real_world import RealWorld  # noqa: PLC0415

    return RealWorld(parent)


def mounted(folder: Path, stack: ExitStack) -> Path:
    """Mount a tmpfs with little room; `stack` unmounts it."""
    options = f"size={SMALL_ROOM}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "byre-test", folder], check=True)
    stack.callback(lambda: subprocess.run(["umount", folder], check=True))
    return folder

"""What a live device turns out to be when somebody made it anew or took its node away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from statemachine.errors import IdentityMismatch
from statemachine.machine import State
from statemachine.observed import SnapshotTable
from statemachine.units import Sectors
from tests.unit.builders import BASE, MIB, Stage
from tests.unit.strays import add_loop

OTHER_BASE, OTHER_FILE = Path("/srv/other.ext4"), Path("/srv/other.cow")


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    made.kernel.make_file(OTHER_BASE, MIB, b"other")
    made.kernel.make_file(OTHER_FILE, 2 * MIB)
    yield made
    made.close()


def make_by_hand(stage: Stage, *, base: Path, cow: Path, sectors: int) -> None:
    """Remove the disk's device and make one with its name and UUID on other things."""
    record = stage.record()
    uuid = f"BYRE-{record.id}-{record.generation}"
    stage.kernel.remove_dm_by_hand(record.device_name)
    table = SnapshotTable(
        length=Sectors(sectors),
        origin=add_loop(stage, base, "by hand", read_only=True).device,
        cow=add_loop(stage, cow, "by hand").device,
    )
    stage.kernel.dm_create(record.device_name, uuid)
    stage.kernel.dm_load(uuid, table)
    stage.kernel.dm_resume(uuid)


@pytest.mark.parametrize(
    ("base", "cow", "sectors", "why"),
    [
        (BASE, OTHER_FILE, MIB // 512, "(/srv/other.cow), not on its own file"),
        (OTHER_BASE, None, MIB // 512, "(/srv/other.ext4), not over its base"),
        (BASE, None, 8, "has 8 sectors, its disk 1048576 bytes"),
    ],
)
def test_a_device_made_by_hand_on_other_things_is_faulted_and_left_alone(
    stage: Stage, base: Path, cow: Path | None, sectors: int, why: str
) -> None:
    record = stage.live()
    make_by_hand(stage, base=base, cow=cow or Path(record.cow_path), sectors=sectors)
    seen = stage.kernel.dm(record.device_name)
    stage.settle()
    fault = stage.record().fault
    assert fault is not None
    assert (fault.kind, fault.exit_code) == (IdentityMismatch.kind, 4)
    assert why in fault.message
    assert seen == stage.kernel.dm(record.device_name)
    stage.check_quiet()


def test_a_device_made_by_hand_on_its_own_things_is_no_fault(stage: Stage) -> None:
    record = stage.live()
    make_by_hand(stage, base=BASE, cow=Path(record.cow_path), sectors=MIB // 512)
    stage.settle()
    assert (stage.record().fault, stage.record().state) == (None, State.SNAPSHOTTED)


def test_a_missing_kernel_node_is_made_again(stage: Stage) -> None:
    record = stage.live()
    node = Path(f"/dev/dm-{record.device_number.partition(':')[2]}")
    stage.kernel.delete(node)
    stage.settle()
    drift = ["drift.detected repair", "transition.started repair", "transition.completed repair"]
    assert drift == stage.types()[-3:]
    assert stage.kernel.read_link(node).target == record.device_number
    stage.check()
    stage.check_quiet()


def test_a_kernel_node_that_is_somebodys_file_is_refused_until_it_is_gone(stage: Stage) -> None:
    record = stage.live()
    node = Path(f"/dev/dm-{record.device_number.partition(':')[2]}")
    stage.kernel.delete(node)
    stage.kernel.make_file(node, 512, b"somebody's")
    stage.settle()
    failure = stage.record().failure
    assert failure is not None
    assert (failure.kind, failure.exit_code) == ("foreign-device", 4)
    assert stage.kernel.read(node, 0, 10) == b"somebody's"
    stage.kernel.delete(node)
    stage.settle()
    stage.check()

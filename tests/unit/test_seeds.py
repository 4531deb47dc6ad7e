"""What banger's dmsnap promises, on the simulated kernel: how a start that fails is taken back.

The other seeds' guarantees are on docs/explanation/seeds.md, with the tests that show them.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from statemachine.machine import Desired, State, Trigger
from tests.unit.builders import Stage


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def test_dmsnap_unwinds_in_reverse_order(stage: Stage) -> None:
    """Its deferred calls: the device first, then the loop of the CoW; what was there stays."""
    stage.declare(state=Desired.ATTACHED)
    stage.settle()
    stage.command(Trigger.REMOVE)
    stage.kernel.faults.clear()
    stage.kernel.faults.fail("put_link", errno.EIO, times=None)
    stage.declare(link=Path("/srv/vm/rootfs.link"))
    stage.once()
    made = ["create_sparse", "loop_attach", "loop_attach", "dm_create", "dm_load", "dm_resume"]
    undone = ["dm_remove"]
    did = [call.name for call in stage.kernel.faults.changes if call.error is None]
    assert [name for name in did if name in (*made, *undone)] == [*made, *undone]
    assert stage.record().state is State.ATTACHED
    assert [stage.record().cow_loop] == [
        loop.number for loop in stage.kernel.loops() if not loop.read_only
    ]


@pytest.mark.parametrize(("device", "loop", "link"), list(product((False, True), repeat=3)))
def test_dmsnap_tolerates_what_is_already_gone(
    stage: Stage, *, device: bool, loop: bool, link: bool
) -> None:
    """A removal asks of nothing that it be there."""
    path = Path("/srv/vm/rootfs.link")
    record = stage.live(link=path)
    if link:
        stage.kernel.delete(path)
    if device:
        stage.kernel.remove_dm_by_hand(record.device_name)
    if loop:
        assert record.cow_loop is not None
        with contextlib.suppress(OSError):  # it may have gone with the device
            stage.kernel.detach_loop_by_hand(record.cow_loop)
    assert stage.command(Trigger.REMOVE).state is State.REMOVED
    assert (stage.kernel.loops(), stage.kernel.dm_names()) == ((), ())
    assert stage.kernel.list_folder(stage.byre.root.cows) == ()
    assert stage.kernel.identify(path) is None
    stage.check_log()

"""A base's one loop: shared, given back with the last disk, and found again after a crash."""

from __future__ import annotations

from pathlib import Path

from reconciler.bases import BaseLoops
from reconciler.kernel.sim import SimKernel
from statemachine.fileidentity import FileIdentity
from statemachine.names import base_marker

ROOT_ID, OTHER_ROOT_ID = "0" * 16, "1" * 16
BASE = Path("/srv/base.ext4")


def base_on(kernel: SimKernel) -> FileIdentity:
    if kernel.identify(BASE) is None:
        kernel.make_file(BASE, 2**20)
    found = kernel.identify(BASE)
    assert found is not None
    return found


def test_two_disks_on_one_base_share_its_loop() -> None:
    kernel = SimKernel()
    bases, base = BaseLoops(kernel, ROOT_ID), base_on(kernel)
    first, made = bases.attach("sb-1", BASE, base)
    second, made_again = bases.attach("sb-2", BASE, base)
    assert (first, made, made_again) == (second, True, False)
    assert first.read_only


def test_the_loop_goes_with_the_last_disk_only() -> None:
    kernel = SimKernel()
    bases, base = BaseLoops(kernel, ROOT_ID), base_on(kernel)
    bases.attach("sb-1", BASE, base)
    bases.attach("sb-2", BASE, base)
    assert not bases.release("sb-1", base)
    assert len(kernel.loops()) == 1
    assert bases.release("sb-2", base)
    assert kernel.loops() == ()


def test_another_root_and_a_stranger_have_loops_of_their_own() -> None:
    kernel = SimKernel()
    base = base_on(kernel)
    kernel.add_foreign_loop(BASE)
    ours, _ = BaseLoops(kernel, ROOT_ID).attach("sb-1", BASE, base)
    theirs, made = BaseLoops(kernel, OTHER_ROOT_ID).attach("sb-1", BASE, base)
    assert made
    assert ours.number != theirs.number
    assert BaseLoops(kernel, ROOT_ID).sweep() == [ours]
    assert {loop.marker for loop in kernel.loops()} >= {base_marker(OTHER_ROOT_ID)}
    assert len(kernel.loops()) == 2


def test_a_loop_that_a_crash_left_is_given_back_unless_a_disk_claims_it() -> None:
    kernel = SimKernel()
    base = base_on(kernel)
    BaseLoops(kernel, ROOT_ID).attach("sb-1", BASE, base)
    after = BaseLoops(kernel, ROOT_ID)
    after.claim("sb-1", base)
    assert after.sweep() == []
    assert len(BaseLoops(kernel, ROOT_ID).sweep()) == 1
    assert kernel.loops() == ()

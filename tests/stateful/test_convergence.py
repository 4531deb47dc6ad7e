"""Any sequence of wishes, faults, crashes, reboots and outside interference converges in the end.

At the end the faults stop, whoever holds something lets go, and then: every disk is what is
desired, the chain verifies, a replay gives the live records, nothing is leaked, nothing foreign
was touched, and a further pass does nothing.
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from reconciler.kernel.sim import Handle, SimCrash
from reconciler.kernel.sim.faults import ANY_CHANGE
from statemachine.errors import ActionError, RefusedError
from statemachine.machine import LIVE, Desired, Trigger
from statemachine.observed import LinkKind
from tests.unit.builders import BASE, MIB, Stage, leaks

NAMES = ("sb-1", "sb-2", "sb-3")
OTHER_BASE = Path("/srv/other.ext4")
BASES = {"sb-1": BASE, "sb-2": BASE, "sb-3": OTHER_BASE}
FOREIGN = Path("/srv/foreign.img")
ERRNOS = (errno.EBUSY, errno.EIO, errno.ENOSPC, errno.EACCES, errno.EINVAL)
names = st.sampled_from(NAMES)


def link_of(name: str) -> Path:
    return Path("/srv/vm") / name / "rootfs.link"


class Convergence(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="byre-test-")
        self.stage = Stage(Path(self.folder.name))
        self.kernel = self.stage.kernel
        self.handles: list[Handle] = []

    @initialize()
    def add_what_is_foreign(self) -> None:
        self.kernel.make_file(OTHER_BASE, 2 * MIB, b"other")
        self.kernel.make_file(FOREIGN, MIB)
        self.kernel.add_foreign_dm("byre-confusing")
        self.kernel.add_foreign_dm("other", uuid="LVM-1234")
        self.kernel.add_foreign_loop(FOREIGN)
        self.foreign = self.seen_foreign()

    # --- wishes -------------------------------------------------------------------------------

    @rule(name=names, desired=st.sampled_from(Desired), linked=st.booleans())
    def declare(self, name: str, desired: Desired, *, linked: bool) -> None:
        link = link_of(name) if linked else None
        self.asked(lambda: self.stage.declare(name, desired, link=link, base=BASES[name]))

    @rule(name=names, trigger=st.sampled_from([Trigger.PAUSE, Trigger.RESTORE, Trigger.REMOVE]))
    def command(self, name: str, trigger: Trigger) -> None:
        if self.stage.byre.log.record(name) is not None:
            self.asked(lambda: self.stage.byre.command([name], trigger))

    def asked(self, ask: Callable[[], object]) -> None:
        with contextlib.suppress(RefusedError, ActionError):
            ask()

    # --- the reconciler -----------------------------------------------------------------------

    @rule(name=names)
    def make_a_pass(self, name: str) -> None:
        with contextlib.suppress(ActionError):
            self.stage.reconciler.reconcile(name)

    @rule(name=names, call=st.integers(1, 14), after=st.booleans())
    def crash_in_a_pass(self, name: str, call: int, *, after: bool) -> None:
        faults = self.kernel.faults
        faults.crash_at(faults.points + call, when="after" if after else "before")
        with contextlib.suppress(SimCrash):
            self.make_a_pass(name)
        self.restart()

    @rule()
    def restart(self) -> None:
        self.kernel.faults.clear()
        self.stage.restart()

    @rule(seconds=st.sampled_from([0.1, 1.0, 60.0]))
    def pass_time(self, seconds: float) -> None:
        self.stage.clock.advance_s(seconds)

    # --- what goes wrong ----------------------------------------------------------------------

    @rule(number=st.sampled_from(ERRNOS), times=st.integers(1, 3), after=st.integers(0, 8))
    def fail(self, number: int, times: int, after: int) -> None:
        self.kernel.faults.fail(ANY_CHANGE, number, times=times, after=after)

    @rule(renumber=st.booleans())
    def reboot(self, *, renumber: bool) -> None:
        self.kernel.reboot(renumber=renumber)
        self.handles.clear()
        self.stage.restart()
        self.kernel.add_foreign_dm("byre-confusing")
        self.kernel.add_foreign_loop(FOREIGN)
        self.foreign = self.seen_foreign()

    @rule(name=names)
    def remove_device_by_hand(self, name: str) -> None:
        self.by_hand(lambda: self.kernel.remove_dm_by_hand(f"byre-{name}"))

    @rule(name=names)
    def suspend_device_by_hand(self, name: str) -> None:
        self.by_hand(lambda: self.kernel.suspend_dm_by_hand(f"byre-{name}"))

    @rule(which=st.integers(0, 5))
    def detach_loop_by_hand(self, which: int) -> None:
        ours = [loop for loop in self.kernel.loops() if loop.marker.startswith("BYRE-")]
        if which < len(ours):
            self.by_hand(lambda: self.kernel.detach_loop_by_hand(ours[which].number))

    @rule(name=names)
    def delete_link(self, name: str) -> None:
        if self.kernel.read_link(link_of(name)).kind is LinkKind.SYMLINK:
            self.kernel.delete(link_of(name))

    @rule(name=names)
    def delete_node(self, name: str) -> None:
        node = Path("/dev/mapper") / f"byre-{name}"
        if self.kernel.read_link(node).kind is LinkKind.SYMLINK:
            self.kernel.delete(node)

    @rule(name=names)
    def put_a_file_where_the_link_is(self, name: str) -> None:
        self.delete_link(name)
        if self.kernel.read_link(link_of(name)).kind is LinkKind.MISSING:
            self.kernel.make_file(link_of(name), 512)

    @rule(name=names)
    def open_device(self, name: str) -> None:
        record = self.stage.byre.log.record(name)
        if record is not None and record.state in LIVE:
            self.by_hand(lambda: self.handles.append(self.kernel.open(record.device)))

    @rule()
    def close_all(self) -> None:
        while self.handles:
            self.handles.pop().close()

    def by_hand(self, act: Callable[[], object]) -> None:
        with contextlib.suppress(OSError):  # not there, or in use
            act()

    # --- what holds ---------------------------------------------------------------------------

    def seen_foreign(self) -> tuple[object, ...]:
        return (
            [line for line in self.kernel.dm_names() if not line.uuid.startswith("BYRE-")],
            [loop for loop in self.kernel.loops() if not loop.marker.startswith("BYRE-")],
        )

    @invariant()
    def nothing_foreign_is_touched(self) -> None:
        if hasattr(self, "foreign") and not self.kernel.faults.dead:
            assert self.foreign == self.seen_foreign()

    def teardown(self) -> None:
        self.close_all()
        self.restart()
        for name in NAMES:
            there = self.kernel.read_link(link_of(name))
            if there.kind is LinkKind.OCCUPIED:
                self.kernel.delete(link_of(name))
        self.stage.settle()
        stalled = [r.name for r in self.stage.byre.log.records() if r.failure or r.fault]
        self.stage.byre.retry(stalled)
        self.stage.settle()
        self.stage.check()
        self.stage.check_quiet()
        for record in self.stage.byre.log.records():
            if record.desired is not Desired.REMOVED:
                self.stage.byre.command([record.name], Trigger.REMOVE)
        self.stage.settle()
        self.stage.check()
        assert leaks(self.stage) == []
        assert self.foreign == self.seen_foreign()
        self.stage.close()
        self.folder.cleanup()


# With HYPOTHESIS_PROFILE=long it takes minutes.
TestConvergence = pytest.mark.timeout(3600)(Convergence.TestCase)

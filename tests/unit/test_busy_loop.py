"""A clone on a real loop device of this host: in use it stays, and goes on when it is closed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from reconciler.api import Byre
from reconciler.config import Settings
from reconciler.daemon import Daemon
from reconciler.kernel.linux import LinuxKernel
from statemachine.machine import State, Trigger
from statemachine.spec import DriverChoice, OnBusy
from tests.contract.real_world import RealWorld

WHY_NOT = LinuxKernel().capabilities().loop
pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(WHY_NOT), reason=f"loops: {WHY_NOT}")]

GIVE_UP_S = 60.0
NEVER_S = 3600.0
SIZE = 1 << 20


@pytest.fixture
def world() -> Iterator[RealWorld]:
    made = RealWorld()
    yield made
    made.cleanup()


@pytest.fixture
def byre(world: RealWorld) -> Iterator[Byre]:
    settings = Settings(resync_s=NEVER_S, blocked_poll_s=NEVER_S, device_prefix=world.prefix[:-1])
    with Byre(world.folder / "root", settings=settings) as made:
        yield made


@pytest.fixture
def device(world: RealWorld, byre: Byre) -> str:
    """A live clone's loop device."""
    base = world.make_file("base", SIZE)
    byre.ensure("sb-1", base=base, driver=DriverChoice.CLONE, busy_timeout_s=NEVER_S)
    [waited] = byre.wait(["sb-1"], timeout_s=GIVE_UP_S)
    assert waited.record.device.startswith("/dev/loop")
    return waited.record.device


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Catch what is logged: a command of an earlier test may have left a closed stream for it."""
    with capture_logs():
        yield
    structlog.reset_defaults()


@pytest.fixture
def daemon(byre: Byre, device: str) -> Iterator[Daemon]:
    """A reconciler that looks at nothing again unless it is woken by the holders."""
    assert device
    running = Daemon(byre)
    thread = threading.Thread(target=running.run)
    thread.start()
    until(lambda: bool(byre.log.select("WHERE type = 'reconciler.started'")))
    yield running
    running.stop("the test is over")
    thread.join(GIVE_UP_S)
    assert not thread.is_alive()


def until(question: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + GIVE_UP_S
    while not question():
        assert time.monotonic() < give_up_s, "it did not happen"
        time.sleep(0.01)


def is_blocked(byre: Byre) -> bool:
    failure = byre.get("sb-1").failure
    return failure is not None and failure.kind == "in-use"


@pytest.mark.parametrize("trigger", [Trigger.PAUSE, Trigger.REMOVE])
def test_it_is_left_alone_while_it_is_open_and_goes_when_it_is_closed(
    byre: Byre, device: str, daemon: Daemon, trigger: Trigger
) -> None:
    descriptor = os.open(device, os.O_RDWR)
    try:
        byre.command(["sb-1"], trigger)
        daemon.reload()
        until(lambda: is_blocked(byre))
        failure = byre.get("sb-1").failure
        assert failure is not None
        assert [f"(pid {os.getpid()})"] == [each.split(" ", 2)[2] for each in failure.holders]
        assert os.pread(descriptor, 512, 0) == bytes(512)
    finally:
        os.close(descriptor)
    gone = {Trigger.PAUSE: State.PAUSED, Trigger.REMOVE: State.REMOVED}[trigger]
    until(lambda: byre.get("sb-1").state is gone)


def test_a_command_that_waits_ends_when_it_is_given_up(
    world: RealWorld, byre: Byre, device: str
) -> None:
    base = world.folder / "base"
    spec = {"driver": DriverChoice.CLONE, "on_busy": OnBusy.FAIL, "busy_timeout_s": 0.5}
    byre.ensure("sb-1", base=base, **spec)  # type: ignore[arg-type]
    descriptor = os.open(device, os.O_RDONLY)
    try:
        byre.command(["sb-1"], Trigger.PAUSE)
        [waited] = byre.wait(["sb-1"], timeout_s=GIVE_UP_S)
        assert (waited.exit_code, waited.record.state) == (1, State.SNAPSHOTTED)
        assert f"(pid {os.getpid()}), longer than 0.5 s: given up" in waited.message
    finally:
        os.close(descriptor)
    byre.command(["sb-1"], Trigger.PAUSE)
    [waited] = byre.wait(["sb-1"], timeout_s=GIVE_UP_S)
    assert waited.is_there

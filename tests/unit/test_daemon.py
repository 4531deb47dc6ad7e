"""The running reconciler on a simulated kernel: wake-ups, specs, and a clean end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from reconciler.api import Byre
from reconciler.config import Settings
from reconciler.daemon import HOLD_S, Daemon
from reconciler.kernel.sim import SimKernel
from reconciler.latelooks import PASSES_MAX
from reconciler.outcome import Waited
from reconciler.watch.hint import Hint, HintKind, Hold, Wake, at_once
from statemachine.errors import RootBusy
from statemachine.machine import State, Trigger
from tests.unit.builders import BASE, MIB

GIVE_UP_S = 60.0


class Eyes:
    """A watcher that sees what the test says."""

    name = "test"
    unavailable = ""

    def __init__(self) -> None:
        self.wake: Wake = lambda _: None
        self.hold_s: Hold = at_once
        self.stopped = False

    def start(self, wake: Wake, hold_s: Hold = at_once) -> None:
        self.wake, self.hold_s = wake, hold_s

    def stop(self) -> None:
        self.stopped = True

    def see(self, kind: HintKind, name: str = "") -> None:
        self.wake(Hint(source=self.name, kind=kind, name=name))


def until(question: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + GIVE_UP_S
    while not question():
        assert time.monotonic() < give_up_s, "it did not happen"
        time.sleep(0.005)


class Running:
    """A daemon in a thread of its own, and a second opener of the same root that speaks to it."""

    def __init__(self, folder: Path) -> None:
        self.kernel = SimKernel()
        self.kernel.make_file(BASE, MIB)
        self.eyes = Eyes()
        self.specs = folder / "specs"
        self.specs.mkdir()
        root = folder / "root"
        self._byre = Byre(root, kernel=self.kernel, settings=Settings(resync_s=3600))
        self.daemon = Daemon(self._byre, specs_path=self.specs, watchers=[self.eyes])
        self.asking = Byre(root, kernel=self.kernel)
        self._thread = threading.Thread(target=self.daemon.run)

    def start(self) -> None:
        self._thread.start()
        self.until(lambda: bool(self.asking.log.select("WHERE type = 'reconciler.started'")))

    def end(self) -> bool:
        """Stop as SIGTERM does; tells whether it ended."""
        self.daemon.stop("SIGTERM")
        self._thread.join(GIVE_UP_S)
        return not self._thread.is_alive()

    def until(self, question: Callable[[], bool]) -> None:
        until(question)

    def until_state(self, state: State, name: str = "sb-1") -> None:
        def is_there() -> bool:
            record = self.asking.log.record(name)
            return record is not None and record.state is state

        self.until(is_there)

    def until_at_rest(self) -> None:
        """Wait until the look after a transition, which is made a little later, is over."""

        def rests() -> bool:
            if len(self.daemon._late):  # noqa: SLF001 - nobody else knows
                return False
            depth = self.daemon._disks.depth()  # noqa: SLF001 - only the queue knows
            return depth.ready == depth.processing == depth.delayed == 0

        self.until(rests)

    def tell_log(self) -> None:
        self.eyes.see(HintKind.LOG, "byre.db")

    def close(self) -> None:
        if self._thread.is_alive():
            self.end()
        self.asking.close()
        self._byre.close()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield
    structlog.reset_defaults()


@pytest.fixture
def running(folder: Path) -> Iterator[Running]:
    made = Running(folder)
    made.start()
    yield made
    made.close()


def live(running: Running) -> None:
    running.asking.ensure("sb-1", base=BASE)
    running.tell_log()
    running.until_state(State.SNAPSHOTTED)
    running.until_at_rest()


def test_what_others_append_is_done(running: Running) -> None:
    live(running)
    running.asking.command(["sb-1"], Trigger.PAUSE)
    running.tell_log()
    running.until_state(State.PAUSED)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(HintKind.DEVICE, "dm-0"), (HintKind.MAPPER, "byre-sb-1"), (HintKind.ALL, "")],
)
def test_a_hint_leads_to_a_pass(running: Running, kind: HintKind, name: str) -> None:
    live(running)
    running.kernel.remove_dm_by_hand("byre-sb-1")
    running.eyes.see(kind, name)
    running.until_state(State.RESTORED)


def test_a_hint_about_something_foreign_is_nobodys_business(running: Running) -> None:
    live(running)
    calls = running.kernel.faults.calls
    for name in ("dm-99", "loop99", "sda", ""):
        running.eyes.see(HintKind.DEVICE, name)
    running.eyes.see(HintKind.MAPPER, "vg-root")
    time.sleep(0.05)
    assert calls == running.kernel.faults.calls


def test_a_spec_folder_is_kept_to(running: Running) -> None:
    path = running.specs / "a.toml"
    path.write_text(f'[[disk]]\nname = "sb-1"\nbase = "{BASE}"\n')
    running.eyes.see(HintKind.SPEC, "a.toml")
    running.until_state(State.SNAPSHOTTED)
    path.write_text(f'[[disk]]\nname = "sb-1"\nbase = "{BASE}"\nstate = "paused"\n')
    running.eyes.see(HintKind.SPEC, "a.toml")
    running.until_state(State.PAUSED)
    path.unlink()
    running.eyes.see(HintKind.SPEC, "a.toml")
    time.sleep(0.3)
    record = running.asking.get("sb-1")
    assert State.PAUSED is record.state, "a spec that vanishes changes nothing"


def test_a_faulty_set_changes_nothing_and_is_told_once(folder: Path) -> None:
    with capture_logs() as lines:
        running = Running(folder)
        path = running.specs / "a.toml"
        path.write_text(f'[[disk]]\nname = "sb-1"\nbase = "{BASE}"\n[[disk]]\nname = "Bad"\n')
        running.start()
        for _ in range(3):
            running.daemon.reload()
            time.sleep(0.05)
        assert running.end()
        assert running.asking.log.records() == []
        running.close()
    told = [line["error"] for line in lines if "spec not accepted" in line["event"]]
    assert (len(told), len(set(told))) == (2, 2)


def test_it_ends_after_the_transition_in_flight(running: Running) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        reached.set()
        go_on.wait(GIVE_UP_S)

    running.kernel.faults.hook("dm_load", hold)
    running.asking.ensure("sb-1", base=BASE)
    running.tell_log()
    assert reached.wait(GIVE_UP_S)
    running.daemon.stop("SIGTERM")
    go_on.set()
    assert running.end()
    record = running.asking.get("sb-1")
    assert (record.state, record.in_flight) == (State.SNAPSHOTTED, None)
    last = running.asking.log.select("ORDER BY seq DESC LIMIT 1")[0]
    assert (last.type, last.data["why"]) == ("reconciler.stopped", "SIGTERM")
    assert running.eyes.stopped


def test_what_devices_tell_is_held_back_while_a_worker_is_at_work_and_never_else(
    running: Running,
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        reached.set()
        go_on.wait(GIVE_UP_S)

    until(lambda: running.eyes.hold_s() == 0)
    running.kernel.faults.hook("dm_load", hold)
    running.asking.ensure("sb-1", base=BASE)
    running.tell_log()
    assert reached.wait(GIVE_UP_S)
    assert running.eyes.hold_s() == HOLD_S
    go_on.set()
    until(lambda: running.eyes.hold_s() == 0)


def test_many_disks_that_came_to_rest_are_looked_at_together(running: Running) -> None:
    names = [f"sb-{number}" for number in range(10 * PASSES_MAX)]
    for name in names:
        running.asking.ensure(name, base=BASE)
    running.tell_log()
    for name in names:
        running.until_state(State.SNAPSHOTTED, name)
    running.until_at_rest()

    def surveys() -> int:
        return len([call for call in running.kernel.trace if call.name == "dm_devices"])

    before = surveys()
    running.kernel.remove_dm_by_hand("byre-sb-7")  # and nobody tells of it
    for name in names:
        running.daemon._look_later(name)  # noqa: SLF001 - as after a pass of each
    running.until(
        lambda: bool(running.asking.log.select("WHERE disk = 'sb-7' AND type = 'drift.detected'"))
    )
    running.until_state(State.RESTORED, "sb-7")
    running.until_at_rest()
    assert surveys() > before


def test_a_restart_with_live_disks_changes_nothing(running: Running, folder: Path) -> None:
    live(running)
    assert running.end()
    seq, points = running.asking.log.last_seq(), running.kernel.faults.points
    with Byre(folder / "root", kernel=running.kernel) as byre:
        again = Daemon(byre)
        thread = threading.Thread(target=again.run)
        thread.start()
        running.until(lambda: running.asking.log.last_seq() > seq)
        time.sleep(0.1)
        again.stop("SIGTERM")
        thread.join(GIVE_UP_S)
    types = [event.type for event in running.asking.log.events(after=seq)]
    assert types == ["reconciler.started", "reconciler.stopped"]
    assert points == running.kernel.faults.points


def test_one_root_has_one_reconciler(running: Running, folder: Path) -> None:
    with Byre(folder / "root", kernel=running.kernel) as byre, pytest.raises(RootBusy):
        Daemon(byre).run()


def test_a_waiting_command_is_served_by_the_daemon(running: Running) -> None:
    running.asking.ensure("sb-1", base=BASE)
    running.tell_log()
    [waited] = running.asking.wait(["sb-1"], timeout_s=GIVE_UP_S)
    assert (waited.exit_code, waited.record.device) == (0, "/dev/mapper/byre-sb-1")


def test_a_small_cow_is_grown_without_any_hint(running: Running) -> None:
    running.asking.ensure("sb-1", base=BASE, cow_size="1MiB")
    running.tell_log()
    running.until_state(State.SNAPSHOTTED)
    device = running.asking.get("sb-1").device
    for chunk in range(20):
        running.kernel.write(device, chunk * 4096, b"y" * 4096)
    running.until(lambda: "cow.grown" in [event.type for event in running.asking.history("sb-1")])


def test_a_waiting_command_gives_way_to_a_reconciler_and_gets_its_answer(folder: Path) -> None:
    kernel = SimKernel()
    kernel.make_file(BASE, MIB)
    with (
        Byre(folder / "root", kernel=kernel) as asking,
        Byre(folder / "root", kernel=kernel) as staying,
    ):
        asking.ensure("sb-1", base=BASE)
        asking.wait(["sb-1"], timeout_s=GIVE_UP_S)
        held = kernel.open("/dev/mapper/byre-sb-1")
        asking.command(["sb-1"], Trigger.PAUSE)
        answers: list[Waited] = []
        waiting = threading.Thread(
            target=lambda: answers.extend(asking.wait(["sb-1"], timeout_s=6 * GIVE_UP_S))
        )
        waiting.start()
        until(lambda: asking.lock.is_held)
        daemon = Daemon(staying)
        working = threading.Thread(target=daemon.run)
        working.start()
        until(lambda: staying.lock.is_held)
        assert waiting.is_alive()
        held.close()
        daemon.resync()
        waiting.join(6 * GIVE_UP_S)
        daemon.stop("SIGTERM")
        working.join(GIVE_UP_S)
    assert [(waited.exit_code, waited.record.state) for waited in answers] == [(0, State.PAUSED)]


def test_a_disk_whose_time_is_over_is_paused_without_any_other_wake_up(running: Running) -> None:
    running.asking.ensure("sb-1", base=BASE, ttl=1)
    running.tell_log()
    running.until_state(State.PAUSED)
    last = [each.data.get("why") for each in running.asking.history("sb-1")]
    assert "expired" in last


def test_disks_that_pause_when_idle_do_so_when_many_were_looked_at_together(
    running: Running,
) -> None:
    names = [f"sb-{number}" for number in range(10 * PASSES_MAX)]
    for name in names:
        running.asking.ensure(name, base=BASE, idle_pause=1)
    running.tell_log()
    for name in names:
        running.until_state(State.PAUSED, name)

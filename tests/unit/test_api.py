"""The Python API: what it refuses, and what it answers when it waits."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import reconciler
from reconciler.api import Byre
from reconciler.config import Settings
from reconciler.daemon import Daemon
from reconciler.kernel.sim import SimKernel
from reconciler.waiting import MANY, REST_EACH_S, _Awaited
from statemachine import standing
from statemachine.commits import Commit
from statemachine.errors import IllegalTransition, NoSuchDisk, SpecError
from statemachine.machine import Desired, State, Trigger
from statemachine.record import Record
from statemachine.standing import Standing
from tests.unit.builders import BASE, MIB, Stage


@pytest.fixture
def kernel() -> SimKernel:
    made = SimKernel()
    made.make_file(BASE, MIB)
    return made


@pytest.fixture
def byre(folder: Path, kernel: SimKernel) -> Iterator[Byre]:
    with Byre(folder / "root", kernel=kernel, settings=Settings(attempts_max=3)) as made:
        yield made


def test_the_package_offers_it() -> None:
    assert reconciler.Byre is Byre
    with pytest.raises(AttributeError):
        reconciler.Nonsense  # noqa: B018


def test_ensure_wait_and_history(byre: Byre) -> None:
    assert byre.ensure("sb-1", base=BASE).changed
    assert not byre.ensure("sb-1", base=BASE).changed
    [waited] = byre.wait(["sb-1"], timeout_s=10)
    assert (waited.is_there, waited.record.device) == (True, "/dev/mapper/byre-sb-1")
    assert byre.history("sb-1")[-1].type == "transition.completed"


@pytest.mark.parametrize(
    ("name", "base", "link"),
    [("Bad", str(BASE), None), ("a/b", str(BASE), None), ("a", "", None),
     ("a", "/srv/missing", None), ("a", str(BASE), "/x/../y"), ("a", str(BASE), "/x\ny"),
     ("a", "/srv/\udcff", None)],
)  # fmt: skip
def test_a_call_is_checked_as_a_spec_is(byre: Byre, name: str, base: str, link: str | None) -> None:
    with pytest.raises(SpecError):
        byre.ensure(name, base=base, link=link)
    assert byre.log.last_seq() == 0


def test_a_disk_that_cannot_be_looked_at_is_not_called_there(byre: Byre, kernel: SimKernel) -> None:
    byre.ensure("sb-1", base=BASE)
    byre.wait(["sb-1"], timeout_s=10)
    kernel.faults.fail("dm", errno.ENOENT, times=10**6)
    [once] = byre.reconcile_once(timeout_s=2)
    [waited] = byre.wait(["sb-1"], timeout_s=2)
    for answer in (once, waited):
        assert (answer.exit_code, answer.message) == (5, "it could not be looked at")
    kernel.faults.clear()
    assert byre.reconcile_once(timeout_s=60)[0].is_there


def test_a_name_twice_in_one_command_is_one_wish(byre: Byre) -> None:
    byre.ensure("sb-1", base=BASE)
    [declared] = byre.command(["sb-1", "sb-1"], Trigger.REMOVE)
    assert declared.changed


def test_what_cannot_be_reached_is_refused_before_anything_is_recorded(byre: Byre) -> None:
    byre.ensure("sb-1", base=BASE)
    byre.wait(["sb-1"], timeout_s=10)
    seq = byre.log.last_seq()
    with pytest.raises(IllegalTransition):
        byre.ensure("sb-1", base=BASE, state=Desired.ATTACHED)
    with pytest.raises(NoSuchDisk):
        byre.command(["sb-9"], Trigger.PAUSE)
    assert byre.log.last_seq() == seq


def test_waiting_ends_when_a_disk_failed_for_good(byre: Byre, kernel: SimKernel) -> None:
    kernel.faults.fail("dm_load", errno.EIO, times=None)
    byre.ensure("sb-1", base=BASE)
    byre.ensure("sb-2", base=BASE, state=Desired.ATTACHED)
    failed, there = byre.wait(["sb-1", "sb-2"], timeout_s=10)
    assert (failed.exit_code, there.exit_code) == (1, 0)
    assert "Input/output error" in failed.message


def test_waiting_again_tries_an_old_failure_once_more(byre: Byre, kernel: SimKernel) -> None:
    kernel.faults.fail("dm_load", errno.EIO)
    byre.ensure("sb-1", base=BASE)
    assert byre.wait(["sb-1"], timeout_s=10)[0].exit_code == 1
    byre.retry(["sb-1"])
    assert byre.wait(["sb-1"], timeout_s=10)[0].record.state is State.SNAPSHOTTED


def test_the_lock_is_given_back_after_waiting(byre: Byre) -> None:
    byre.ensure("sb-1", base=BASE)
    byre.wait(["sb-1"], timeout_s=10)
    assert not byre.lock.is_held


def test_many_disks_are_worked_on_together(byre: Byre, kernel: SimKernel) -> None:
    names = [f"sb-{number}" for number in range(20)]
    for name in names:
        byre.ensure(name, base=BASE)
    assert all(waited.is_there for waited in byre.wait(names, timeout_s=30))
    assert sum(loop.read_only for loop in kernel.loops()) == 1
    byre.command(names, Trigger.REMOVE)
    assert all(waited.is_there for waited in byre.wait(names, timeout_s=30))
    assert (kernel.loops(), kernel.dm_names()) == ((), ())


def test_a_device_of_the_last_boot_is_not_there_until_it_was_looked_for(
    byre: Byre, folder: Path, kernel: SimKernel
) -> None:
    byre.ensure("sb-1", base=BASE)
    byre.wait(["sb-1"], timeout_s=10)
    kernel.reboot()
    with Byre(folder / "root", kernel=kernel) as busy, busy.lock:
        with Byre(
            folder / "root", kernel=kernel
        ) as asking:  # somebody else should work, and does not
            [waited] = asking.wait(["sb-1"], timeout_s=0.2)
        assert (waited.exit_code, waited.record.state) == (5, State.SNAPSHOTTED)
    with Byre(folder / "root", kernel=kernel) as after:
        [waited] = after.wait(["sb-1"], timeout_s=10)
    assert (waited.exit_code, waited.record.state) == (0, State.RESTORED)


def test_a_plain_file_outlives_a_reboot(folder: Path) -> None:
    kernel = SimKernel()
    kernel.host.dm_errno = kernel.host.loop_errno = errno.ENOENT
    kernel.make_file(BASE, MIB)
    with Byre(folder / "plain", kernel=kernel) as byre:
        byre.ensure("sb-1", base=BASE)
        byre.wait(["sb-1"], timeout_s=10)
    kernel.reboot()
    with Byre(folder / "plain", kernel=kernel) as byre:
        assert [each.exit_code for each in byre.wait(["sb-1"], timeout_s=10)] == [0]


def test_who_waits_reads_only_what_the_log_has_news_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred disks and hundreds of commits: to read them all at each would take longer."""
    stage = Stage(folder)
    names = [f"sb-{number}" for number in range(5)]
    for name in names:
        stage.declare(name)
    read: list[str] = []
    plain = Standing.read

    def counted(standing: Standing) -> Record:
        read.append(standing.name)
        return plain(standing)

    monkeypatch.setattr(Standing, "read", counted)
    awaited = _Awaited(stage.byre.log, names)
    assert sorted(read) == names
    awaited.read_news()
    assert len(read) == len(names)
    assert not awaited.are_decided(0)
    for name in names[1:]:
        stage.reconciler.reconcile(name)
        awaited.read_news()
    assert sorted(read[len(names) :]) == names[1:]
    assert not awaited.are_decided(0)
    stage.reconciler.reconcile("sb-0")
    awaited.read_news()
    assert awaited.are_decided(0)
    assert [record.name for record in awaited.records()] == names
    stage.byre.command(["sb-3"], Trigger.PAUSE)
    awaited.read_news()
    assert not awaited.are_decided(0), "there before, and not any more"
    stage.close()


def test_who_waits_for_many_rests_between_two_looks_and_not_for_the_last(folder: Path) -> None:
    stage = Stage(folder)
    names = [f"sb-{number}" for number in range(MANY)]
    for name in names:
        stage.declare(name)
    awaited = _Awaited(stage.byre.log, names)
    assert awaited.rest_s == MANY * REST_EACH_S

    stage.reconciler.reconcile("sb-0")
    awaited.read_news()

    assert awaited.rest_s == 0
    stage.close()


def test_many_disks_are_waited_for_to_the_last(byre: Byre) -> None:
    names = [f"sb-{number}" for number in range(2 * MANY)]
    for name in names:
        byre.ensure(name, base=BASE)
    daemon = Daemon(byre)
    thread = threading.Thread(target=daemon.run, daemon=True)
    thread.start()
    try:
        waited = byre.wait(names, timeout_s=60)
    finally:
        daemon.stop("the test is over")
        thread.join(60)
    assert [each.exit_code for each in waited] == [0] * len(names)


def test_a_disk_in_flight_is_waited_for_without_reading_its_record(folder: Path) -> None:
    stage = Stage(folder)
    stage.declare("sb-1")
    awaited = _Awaited(stage.byre.log, ["sb-1"])
    seen: list[tuple[bool, bool]] = []

    def look(_: Commit) -> None:
        awaited.read_news()
        [now] = standing.of(stage.byre.log, ["sb-1"])
        seen.append((now.is_in_flight, awaited.are_decided(0)))

    stage.byre.log.on_commit = look
    stage.reconciler.reconcile("sb-1")
    assert seen == [(True, False), (True, False), (False, True)]
    stage.close()


def test_who_waits_for_a_disk_that_was_never_declared_is_told(byre: Byre) -> None:
    byre.ensure("sb-1", base=BASE)
    with pytest.raises(NoSuchDisk, match="sb-2"):
        byre.wait(["sb-1", "sb-2"], timeout_s=10)

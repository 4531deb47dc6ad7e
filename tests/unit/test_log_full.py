"""A log without room refuses, loses nothing that it acknowledged, and goes on by itself."""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from reconciler.api import Byre
from reconciler.clock import FakeClock
from reconciler.config import Settings
from reconciler.kernel.sim import SimKernel
from reconciler.reconcile import Reconciler
from statemachine import history
from statemachine.errors import LogUnavailable
from statemachine.eventlog import EventLog
from statemachine.machine import State
from tests.unit.builders import BASE, MIB
from tests.unit.events_made import declaration, host_event

GIVE_UP_S = 60.0
TRIES_MAX = 2_000
RESERVE = 256 * 1024


def fill(log: EventLog) -> int:
    """Append until there is no more room; returns the seq of the last acknowledged event."""
    seq = log.last_seq()
    for _ in range(TRIES_MAX):
        try:
            [event] = log.append([host_event("x" * 1000)])
        except LogUnavailable:
            return seq
        seq = event.seq
    raise AssertionError("it never was full")


# --- a limit that needs no privilege --------------------------------------------------------------


def meet_a_limit(path: Path) -> None:
    """Append with a limit on the size of files (EFBIG), three times over, and check each time."""
    with EventLog(path, reserve_bytes=RESERVE) as log:
        log.append([declaration("sb-1")])
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        for _ in range(3):
            now = path.with_name("byre.db-wal").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (max(now, 32_768) + 20_000, hard))
            acknowledged = fill(log)
            assert acknowledged == log.last_seq()
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            [event] = log.append([host_event("there is room again")])
            assert event.seq == acknowledged + 1
            assert history.verify(log).events == event.seq
        assert path.with_name("reserve").exists()
    with EventLog(path) as log:
        history.prove(log)


def test_a_limit_on_the_size_of_files_is_no_damage(folder: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=meet_a_limit, args=(folder / "byre.db",), daemon=True)
    process.start()
    process.join(GIVE_UP_S)
    assert process.exitcode == 0


# --- a file system that is full -------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "byre-test", place],
        check=False,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def take_all_room(disk: Path) -> None:
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(b"x" * (free.f_bavail * free.f_frsize))
    assert os.statvfs(disk).f_bavail == 0


def make_room(disk: Path) -> None:
    (disk / "filler").unlink()


@pytest.mark.root
def test_the_reserve_lets_the_log_go_on_and_comes_back(small_disk: Path) -> None:
    reserve = small_disk / "reserve"
    with EventLog(small_disk / "byre.db", reserve_bytes=RESERVE) as log:
        log.append([declaration("sb-1")])
        take_all_room(small_disk)
        while reserve.exists():  # the WAL may have some room of its own
            log.append([host_event("y" * 1000)])
        in_need = log.last_seq()
        acknowledged = fill(log)
        assert acknowledged - in_need >= 5, "the reserve was worth something"
        assert not reserve.exists()
        assert history.verify(log).events == acknowledged
        make_room(small_disk)
        log.append([host_event()])
        assert history.verify(log).events == acknowledged + 1
        assert reserve.exists()


@pytest.mark.root
def test_everybody_of_a_group_that_met_a_full_disk_is_told_the_same(small_disk: Path) -> None:
    with EventLog(small_disk / "byre.db") as log:
        log.append([declaration("sb-1")])
        take_all_room(small_disk)
        fill(log)
        refused: list[str] = []

        def work(number: int) -> None:
            try:
                log.append([host_event(f"{number} " + "z" * 4000)])
            except LogUnavailable as error:
                refused.append(error.message)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 8
        make_room(small_disk)
        before = log.last_seq()
        log.append([host_event()])
        assert history.verify(log).events == before + 1


@pytest.mark.root
def test_a_full_log_stays_readable_by_who_has_it_open(small_disk: Path) -> None:
    with EventLog(small_disk / "byre.db") as log:
        log.append([declaration("sb-1")])
        take_all_room(small_disk)
        fill(log)
        record = log.record("sb-1")
        assert record is not None
        assert history.verify(log).events == log.last_seq()
        make_room(small_disk)


# --- what it means for a disk ---------------------------------------------------------------------


@pytest.fixture
def quiet() -> Iterator[None]:
    with capture_logs():
        yield
    structlog.reset_defaults()


@pytest.mark.root
@pytest.mark.usefixtures("quiet")
def test_an_outcome_that_found_no_room_leaves_an_intent_that_the_next_pass_finishes(
    small_disk: Path,
) -> None:
    clock = FakeClock(autojump=True)
    kernel = SimKernel(clock)
    kernel.make_file(BASE, MIB, b"base")
    with Byre(small_disk, kernel=kernel, settings=Settings(), clock=clock, reserve_bytes=0) as byre:
        reconciler = Reconciler(
            byre.log,
            kernel,
            byre.root,
            settings=byre.settings,
            clock=clock,
            random=lambda: 0.5,
        )
        reconciler.begin()
        byre.ensure("sb-1", base=BASE)

        def no_room(_: object) -> None:
            take_all_room(small_disk)
            fill(byre.log)

        kernel.faults.hook("loop_attach", no_room, about="-1.cow")
        with pytest.raises(LogUnavailable):
            reconciler.reconcile("sb-1")
        record = byre.get("sb-1")
        assert record.in_flight is not None
        assert (record.state, record.in_flight.target) == (State.ABSENT, State.ATTACHED)
        intent = record.in_flight.seq
        kernel.faults.clear()

        for _ in range(3):  # as the workers do every few seconds
            with pytest.raises(LogUnavailable):
                reconciler.reconcile("sb-1")
        make_room(small_disk)
        reconciler.reconcile("sb-1")
        record = byre.get("sb-1")
        assert (record.state, record.in_flight) == (State.SNAPSHOTTED, None)
        resumed = [e for e in byre.history("sb-1") if e.data.get("resumes") == intent]
        assert [event.type for event in resumed] == ["transition.started"]
        assert len(kernel.loops()) == 2, "what was begun was gone on with, not done twice"
        history.prove(byre.log)

"""Several processes append to one log at once, and some of them are killed while they do."""

from __future__ import annotations

import multiprocessing
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from statemachine import history
from statemachine.eventlog import EventLog
from tests.unit.events_made import declaration, host_event

PROCESSES = 4
EVENTS = 50
GIVE_UP_S = 60.0

SPAWN = multiprocessing.get_context("spawn")


def append_many(path: Path, number: int) -> None:
    """Append a process's events: half of them of the host, which all processes share."""
    with EventLog(path) as log:
        for turn in range(EVENTS):
            odd = turn % 2
            log.append([declaration(f"sb-{number}-{turn}") if odd else host_event(str(number))])


def append_for_ever(path: Path) -> None:
    """Append until killed."""
    with EventLog(path) as log:
        while True:
            log.append([host_event(), host_event()])


def started(target: object, *arguments: object) -> BaseProcess:
    process = SPAWN.Process(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
    process.start()
    return process


def test_several_processes_lose_nothing_and_keep_one_chain(folder: Path) -> None:
    path = folder / "byre.db"
    processes = [started(append_many, path, number) for number in range(PROCESSES)]
    for process in processes:
        process.join(GIVE_UP_S)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    with EventLog(path, read_only=True) as log:
        assert history.verify(log).events == PROCESSES * EVENTS
        assert len(log.records()) == PROCESSES * EVENTS // 2
        versions = [event.version for event in log.events() if event.disk == "@host"]
        assert list(range(1, PROCESSES * EVENTS // 2 + 1)) == versions
        assert list(history.compare(log)) == []


def test_a_process_killed_while_it_appends_leaves_an_intact_chain(folder: Path) -> None:
    path = folder / "byre.db"
    with EventLog(path) as log:
        seen = 0
        for _ in range(3):
            process = started(append_for_ever, path)
            give_up_s = time.monotonic() + GIVE_UP_S
            while log.last_seq() < seen + 20 and time.monotonic() < give_up_s:
                time.sleep(0.005)
            process.kill()
            process.join(GIVE_UP_S)
            assert process.exitcode == -signal.SIGKILL
            found = history.verify(log)
            assert (found.events >= seen + 20, found.events % 2) == (True, 0), "all or none"
            seen = found.events
        log.append([host_event()])
        assert seen + 1 == history.verify(log).events

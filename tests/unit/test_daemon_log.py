"""A running reconciler and its log: damaged, it ends and leaves all disks; blocked, it goes on."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from reconciler import daemon as daemon_module
from reconciler import workers
from reconciler.api import Byre
from reconciler.config import Settings
from reconciler.daemon import Daemon
from reconciler.kernel.sim import SimKernel
from statemachine import database
from statemachine.errors import LogDamaged
from statemachine.machine import State, Trigger
from tests.unit.builders import BASE, MIB
from tests.unit.cliworld import World

GIVE_UP_S = 60.0


class Running:
    """A daemon in a thread of its own, and a second opener of the same root."""

    def __init__(self, folder: Path) -> None:
        self.kernel = SimKernel()
        self.kernel.make_file(BASE, MIB)
        self.root = folder / "root"
        self._byre = Byre(self.root, kernel=self.kernel, settings=Settings(resync_s=3600))
        self.daemon = Daemon(self._byre)
        self.asking = Byre(self.root, kernel=self.kernel)
        self.ended_by: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.until(lambda: bool(self.asking.log.select("WHERE type = 'reconciler.started'")))

    def _run(self) -> None:
        try:
            self.daemon.run()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.ended_by = error

    def look(self) -> None:
        self.daemon.reload()

    def until(self, question: Callable[[], bool]) -> None:
        give_up_s = time.monotonic() + GIVE_UP_S
        while not question():
            assert time.monotonic() < give_up_s, "it did not happen"
            time.sleep(0.005)

    def until_state(self, name: str, state: State) -> None:
        self.until(lambda: self.asking.get(name).state is state)

    def live(self, *names: str) -> None:
        for name in names:
            self.asking.ensure(name, base=BASE)
        self.look()
        for name in names:
            self.until_state(name, State.SNAPSHOTTED)

    def ended(self) -> BaseException | None:
        """Wait for the end by itself, and return what it was ended by."""
        self._thread.join(GIVE_UP_S)
        assert not self._thread.is_alive()
        return self.ended_by

    def shown(self) -> tuple[object, ...]:
        return (self.kernel.dm_names(), self.kernel.loops(), self.kernel.faults.points)

    def edit(self, *statements: str) -> None:
        """Change the log's file as somebody would who wants to."""
        with contextlib.closing(sqlite3.connect(self.root / "byre.db")) as raw, raw:
            for statement in statements:
                raw.execute(statement)

    def close(self) -> None:
        if self._thread.is_alive():
            self.daemon.stop("the end of the test")
            self._thread.join(GIVE_UP_S)
        self.asking.close()
        self._byre.close()


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured
    structlog.reset_defaults()


@pytest.fixture
def running(folder: Path, lines: list[Any]) -> Iterator[Running]:
    del lines
    made = Running(folder)
    yield made
    made.close()


def assert_soon(event: threading.Event) -> None:
    assert event.wait(GIVE_UP_S), "it did not happen"


def forge_the_newest(running: Running) -> None:
    running.edit(
        "DROP TRIGGER events_no_update",
        "UPDATE events SET actor = 'nobody' WHERE seq = (SELECT max(seq) FROM events)",
    )


def break_the_records(running: Running) -> None:
    running.edit("UPDATE disks SET record = 'nonsense'")


def replace_the_file(running: Running) -> None:
    path = running.root / "byre.db"
    path.rename(path.with_name("moved.db"))


@pytest.mark.parametrize("harm", [forge_the_newest, break_the_records, replace_the_file])
def test_a_reconciler_whose_log_becomes_damaged_ends_and_leaves_every_disk(
    running: Running, lines: list[Any], harm: Callable[[Running], None]
) -> None:
    running.live("sb-1", "sb-2", "sb-3")
    # Nobody gets beyond a look before the harm is done.
    is_harmed = threading.Event()
    running.kernel.faults.hook("dm", lambda _: assert_soon(is_harmed))
    # Something is to be done for each of them, so that each worker meets the damage.
    for name in ("sb-1", "sb-2", "sb-3"):
        running.asking.command([name], Trigger.PAUSE)
    shown = running.shown()
    harm(running)
    is_harmed.set()
    running.look()
    ended_by = running.ended()
    assert isinstance(ended_by, LogDamaged)
    assert shown == running.shown()
    told = [line for line in lines if line["log_level"] in ("error", "critical")]
    assert told == [], "the error itself says so, once"
    assert [line["why"] for line in lines if "why" in line][-1] == "the log is damaged"


def test_a_damaged_log_is_refused_at_the_start_and_nothing_is_touched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(folder, monkeypatch, capsys)
    assert world.create().code == 0
    world.byre("pause", "sb-1")
    with contextlib.closing(sqlite3.connect(world.root / "byre.db")) as raw, raw:
        raw.execute("DROP TRIGGER events_no_update")
        raw.execute("UPDATE events SET reason = 'x' WHERE seq = 3")  # in the middle
    log = (world.root / "byre.db").read_bytes()
    points = world.kernel.faults.points
    for words in (("run",), ("run", "--once")):
        answer = world.byre(*words)
        assert (answer.code, answer.out) == (6, "")
        assert "event 3 was edited" in answer.err
        assert "events 1 to 2 are intact" in answer.err
    assert (points, log) == (world.kernel.faults.points, (world.root / "byre.db").read_bytes())
    verified = world.byre("log", "verify")
    assert (verified.code, "event 3 was edited" in verified.err) == (6, True)


def test_a_damaged_log_is_salvaged_by_the_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(folder, monkeypatch, capsys)
    assert world.create().code == 0
    with contextlib.closing(sqlite3.connect(world.root / "byre.db")) as raw, raw:
        raw.execute("DROP TRIGGER events_no_update")
        raw.execute("UPDATE events SET actor = 'x' WHERE seq = (SELECT max(seq) FROM events)")
    assert world.byre("get").code == 6
    new = folder / "new"
    answer = world.byre("log", "salvage", new / "byre.db", "-o", "json")
    assert (answer.code, answer.json["disks"], answer.json["has_root_id"]) == (0, 1, True)
    assert "was edited" in answer.json["lost"]
    for name in ("byre.db", "head"):
        (new / name).replace(world.root / name)
    for beside in world.root.glob("byre.db-*"):
        beside.unlink()
    points = len(world.kernel.dm_names())
    assert world.byre("run", "--once").code == 0
    assert points == len(world.kernel.dm_names())
    [disk] = world.byre("get", "-o", "json").json
    assert disk["state"] in ("snapshotted", "restored")
    assert world.byre("replay", "--verify").code == 0


def test_a_log_that_cannot_be_written_for_a_while_stops_nothing_for_good(
    running: Running, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "AFTER_ERROR_S", 0.05)
    monkeypatch.setattr(daemon_module, "AFTER_ERROR_S", 0.05)
    running.live("sb-1")
    running.asking.command(["sb-1"], Trigger.PAUSE)
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 20)
    # The writer has its timeout from when it was opened.
    running._byre.log._writer._connection.execute("PRAGMA busy_timeout = 20")  # type: ignore[union-attr]  # noqa: SLF001
    with contextlib.closing(sqlite3.connect(running.root / "byre.db")) as raw:
        raw.execute("BEGIN IMMEDIATE")
        running.look()
        running.until(lambda: sum("pass failed" in line["event"] for line in lines) >= 3)
        assert running.asking.get("sb-1").state is State.SNAPSHOTTED
        assert len(running.kernel.dm_names()) == 1, "nothing is done that cannot be recorded"
        raw.rollback()
    running.until_state("sb-1", State.PAUSED)

"""`clock_steps` is made of the events: `log verify` says where it is not, a repair makes it so."""

from __future__ import annotations

from pathlib import Path

import pytest

from statemachine import clocksteps, proof, repair
from statemachine.errors import LogDamaged
from statemachine.eventlog import EventLog
from tests.unit.cliworld import World
from tests.unit.events_made import host_event

TIMES = (10, 20, 15, 30, 5, 40)
STEPS = [(3,), (5,)]
ALL_STEPS = "SELECT seq FROM clock_steps ORDER BY seq"


@pytest.fixture
def path(folder: Path) -> Path:
    """A log whose clock was set back before events 3 and 5."""
    times = iter(TIMES)
    made = folder / "byre.db"
    with EventLog(made, clock_ns=lambda: next(times)) as log:
        for _ in TIMES:
            log.append([host_event()])
        assert log.rows(ALL_STEPS) == STEPS
    return made


def test_what_the_trigger_noted_is_what_the_events_say(path: Path) -> None:
    with EventLog(path, read_only=True) as log:
        clocksteps.check(log)


@pytest.mark.parametrize(
    ("change", "seq"),
    [
        ("DELETE FROM clock_steps WHERE seq = 3", 3),
        ("DELETE FROM clock_steps WHERE seq = 5", 5),
        ("INSERT INTO clock_steps VALUES (4)", 4),
        ("INSERT INTO clock_steps VALUES (99)", 99),
        ("UPDATE clock_steps SET seq = 6 WHERE seq = 5", 5),
    ],
)
def test_a_table_that_says_something_else_is_found_and_made_anew(
    path: Path, change: str, seq: int
) -> None:
    with EventLog(path) as log:
        log.transact(lambda connection: connection.execute(change))
        with pytest.raises(LogDamaged, match="clock_steps") as caught:
            clocksteps.check(log)
        assert caught.value.seq == seq
        proof.verify(log)
        repair.rebuild(log)
        clocksteps.check(log)
        assert log.rows(ALL_STEPS) == STEPS


def test_a_log_of_before_the_table_has_nothing_to_check(path: Path) -> None:
    with EventLog(path) as log:
        log.transact(lambda connection: connection.execute("DROP TRIGGER events_clock_step"))
        log.transact(lambda connection: connection.execute("DROP TABLE clock_steps"))
        clocksteps.check(log)


def test_log_verify_names_the_event(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(folder, monkeypatch, capsys)
    assert world.create().code == 0
    assert world.byre("log", "verify").code == 0
    with EventLog(world.root / "byre.db") as log:
        log.transact(lambda connection: connection.execute("INSERT INTO clock_steps VALUES (2)"))
    answer = world.byre("log", "verify", "-o", "json")
    assert (answer.code, answer.json["seq"]) == (6, 2)
    assert "replay --repair" in answer.err

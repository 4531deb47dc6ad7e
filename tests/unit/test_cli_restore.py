"""`byre log restore` at the command line: what it says, and what its codes are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cliworld import World


@pytest.fixture
def world(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> World:
    made = World(folder, monkeypatch, capsys)
    assert made.create().code == 0
    assert made.byre("pause", "sb-1", "--wait").code == 0
    return made


@pytest.fixture
def backup(world: World) -> Path:
    path = world.folder / "monday.db"
    answer = world.byre("log", "backup", path, "-o", "json")
    assert (answer.code, answer.json["seq"]) == (0, world.seq())
    return path


def test_a_backup_is_told_to_people_and_never_overwritten(world: World, backup: Path) -> None:
    assert "checked; head" in world.byre("log", "backup", world.folder / "tuesday.db").err
    answer = world.byre("log", "backup", backup)
    assert (answer.code, "exists" in answer.err) == (4, True)


def test_a_restore_tells_what_is_lost_and_what_is_held(world: World, backup: Path) -> None:
    seq = world.seq()
    assert world.byre("restore", "sb-1", "--wait").code == 0
    lost = world.seq()
    answer = world.byre("log", "restore", backup, "--reason", "a test", "-o", "json")
    assert answer.code == 0
    assert (answer.json["seq"], answer.json["lost_seq"]) == (seq, lost)
    assert answer.json["held"] == ["sb-1"]
    assert f"events {seq + 1} to {lost} are not in it" in answer.err
    assert world.byre("log", "verify").code == 0

    assert world.byre("run", "--once").code == 4
    [disk] = world.byre("get", "sb-1", "-o", "json").json
    assert (disk["state"], disk["desired"]) == ("restored", "paused")
    [held] = [each for each in disk["conditions"] if each["type"] == "Held"]
    assert (held["status"], held["reason"]) == ("True", "log-restored")
    assert "held back" in world.byre("plan").err
    assert "held back" in world.byre("explain", "sb-1").err

    assert world.byre("pause", "sb-1", "--wait").code == 0
    [disk] = world.byre("get", "sb-1", "-o", "json").json
    assert (disk["state"], [each["type"] for each in disk["conditions"]]) == ("paused", ["Ready"])


def test_a_spec_that_is_applied_again_lifts_it(world: World, backup: Path) -> None:
    spec = world.spec('[[disk]]\nname = "sb-1"\nbase = "/srv/base.ext4"\nstate = "paused"\n')
    world.byre("restore", "sb-1", "--wait")
    world.byre("log", "restore", backup)
    assert world.byre("apply", "-f", spec, "--wait", "--timeout", "10").code == 0
    [disk] = world.byre("get", "sb-1", "-o", "json").json
    assert (disk["state"], disk["desired"]) == ("paused", "paused")


def test_what_is_no_log_is_refused_and_nothing_changes(world: World) -> None:
    seq = world.seq()
    other = world.folder / "other.db"
    other.write_text("no database\n" * 1000)
    assert world.byre("log", "restore", other).code == 6
    assert world.byre("log", "restore", world.folder / "gone.db").code == 2
    assert world.seq() == seq

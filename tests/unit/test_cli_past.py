"""The past on the command line: earlier moments, what changed, replays, archives and sizes."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from statemachine.batch import write_events
from statemachine.eventlog import EventLog
from statemachine.events import Event, chain_hash
from tests.unit.cliworld import World


@pytest.fixture
def world(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> World:
    """A root with one disk that was paused and one that was removed."""
    made = World(folder, monkeypatch, capsys)
    made.create("sb-1", "--wait")
    made.create("sb-2", "--wait")
    made.byre("pause", "sb-1", "--wait")
    made.byre("remove", "sb-2", "--wait")
    return made


def events_of(world: World) -> list[Event]:
    with EventLog(world.root / "byre.db", read_only=True) as log:
        return list(log.events())


def seq_of(world: World, disk: str, kind: str) -> int:
    return next(e.seq for e in reversed(events_of(world)) if (e.disk, e.type) == (disk, kind))


# --- what changed ---------------------------------------------------------------------------------


def test_what_changed_between_two_moments_is_told_per_disk_and_field(world: World) -> None:
    before = seq_of(world, "sb-1", "disk.declared") - 1
    found = world.byre("diff-log", str(before), "now", "-o", "json").json
    changed = {each["disk"]: each for each in found["disks"]}
    assert {name: each["change"] for name, each in changed.items()} == {
        "sb-1": "changed",
        "sb-2": "removed",
    }
    fields = {each["field"]: each for each in changed["sb-1"]["fields"]}
    assert (fields["state"]["before"], fields["state"]["after"]) == ("snapshotted", "paused")
    assert fields["spec"]["after"]["state"] == "paused"
    assert "seq" not in fields
    first = world.byre("diff-log", "0", str(before), "-o", "json").json["disks"]
    assert [each["change"] for each in first] == ["declared", "declared"]


def test_between_one_moment_and_itself_nothing_changed(world: World) -> None:
    answer = world.byre("diff-log", "now", "now", "-o", "json")
    assert (answer.code, answer.json["disks"]) == (0, [])
    assert "no disk differs" in world.byre("diff-log", "now").err


@pytest.mark.parametrize("place", ["99999", "neverish"])
def test_a_moment_that_is_none_is_a_usage_error(world: World, place: str) -> None:
    assert world.byre("diff-log", "0", place).code == 2
    assert world.byre("diff-log", place).code == 2


# --- a replay -------------------------------------------------------------------------------------


def test_a_replay_to_an_earlier_moment_gives_the_disks_of_then(world: World) -> None:
    seq = seq_of(world, "sb-2", "disk.declared") - 1
    found = world.byre("replay", "--until-seq", str(seq), "-o", "json")
    assert found.code == 0
    then = world.byre("get", "--at-seq", str(seq), "-o", "json").json
    assert found.json["records"] == then
    assert {row["name"] for row in then} == {"sb-1", "sb-2"}


def test_a_replay_into_a_new_file_is_a_log_of_its_own(world: World, tmp_path: Path) -> None:
    seq = seq_of(world, "sb-1", "disk.declared")
    target = tmp_path / "then" / "byre.db"
    assert world.byre("replay", "--until-seq", str(seq), "--into", target).code == 0
    with EventLog(target, read_only=True) as made:
        assert list(made.events()) == events_of(world)[:seq]
        assert made.record("sb-1") is not None
    world.root = tmp_path / "then"
    assert world.byre("log", "verify").code == 0
    assert world.byre("replay", "--into", target).code == 4


def test_a_checkpoint_that_says_something_else_is_told_of(world: World) -> None:
    with EventLog(world.root / "byre.db") as log:
        assert log.checkpoint()
    assert world.byre("replay", "--verify", "-o", "json").json["checkpoints"] == 1
    path = world.root / "byre.db"
    from statemachine import checkpoints  # noqa: PLC0415 - as somebody who forges one

    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as raw:
        found = checkpoints.newest(raw)
        assert found is not None
        rows = list(checkpoints.unpack(found.living))
        rows[0]["attempts"] = 7
        forged = checkpoints.make(
            seq=found.seq, hash_=found.hash, earliest=found.earliest,
            living=[json.dumps(row) for row in rows], gone=[],
        )  # fmt: skip
        raw.execute("DROP TRIGGER checkpoints_no_delete")
        raw.execute("DELETE FROM checkpoints")
        checkpoints.insert(raw, forged)
    answer = world.byre("replay", "--verify", "-o", "json")
    [difference] = answer.json["differences"]
    assert answer.code == 1
    assert difference == f"checkpoint {found.seq}: sb-1: attempts: recorded 7, replayed 0"
    assert world.byre("replay").code == 0, "the records themselves are right"
    assert world.byre("replay", "--repair").code == 0
    assert world.byre("replay", "--verify").code == 0


def test_from_a_checkpoint_only_what_followed_is_replayed(world: World) -> None:
    with EventLog(world.root / "byre.db") as log:
        log.checkpoint()
        seq = log.last_seq()
    world.create("sb-3", "--wait")
    found = world.byre("replay", "--from-checkpoint", "-o", "json").json
    assert (found["since"], found["seq"] - seq) == (seq, found["events"])
    assert found["differences"] == []


def test_events_of_a_newer_byre_are_kept_and_told_of(world: World) -> None:
    path = world.root / "byre.db"
    last = events_of(world)[-1]
    for disk, version in (("sb-1", 99), ("@host", 99), ("sb-9", 1)):
        columns = (
            last.seq + 1, disk, 1, version, "disk.teleported", last.at, "x", "", "", "", '{"v":1}',
            last.hash,
        )  # fmt: skip
        last = Event(*columns, chain_hash(columns))
        with contextlib.closing(sqlite3.connect(path)) as raw, raw:
            write_events(raw, [last])
    (world.root / "head").unlink()
    world.byre("replay", "--repair")
    answer = world.byre("replay", "-o", "json")
    assert answer.json["unknown_types"] == {"disk.teleported": 3}
    assert (answer.code, answer.json["differences"]) == (0, [])
    assert "of a newer byre" in answer.err


@pytest.mark.parametrize(
    "words",
    [
        ("--repair", "--until-seq", "1"),
        ("--repair", "--from-checkpoint"),
        ("--into", "x", "--from-checkpoint"),
        ("--until-seq", "99999"),
    ],
)
def test_what_has_no_meaning_is_a_usage_error(world: World, words: tuple[str, ...]) -> None:
    assert world.byre("replay", *words).code == 2


# --- archives -------------------------------------------------------------------------------------


def test_what_is_archived_can_still_be_asked_for(world: World, tmp_path: Path) -> None:
    whole, file = events_of(world), tmp_path / "old"
    seq = seq_of(world, "sb-2", "disk.declared") - 1
    then = world.byre("get", "--at-seq", str(seq), "-o", "json").json
    done = world.byre("log", "archive", file, "--before", "0s", "-o", "json")
    assert (done.code, done.json["events"]) == (0, len(whole))
    assert world.byre("get", "--at-seq", str(seq)).code == 2
    assert world.byre("get", "--at", "1 hour ago").code == 2
    assert world.byre("get", "--at-seq", str(seq), "--archive", file, "-o", "json").json == then
    [disk] = world.byre("get", "sb-2", "--at-seq", str(seq), "--archive", file, "-o", "json").json
    assert disk["state"] == "snapshotted"
    assert world.byre("get", "--at", "1 hour ago", "--archive", file, "-o", "json").json == []
    assert world.byre("get", "-o", "json").json[0]["name"] == "sb-1"
    for words in ((), ("--archive", file), ("--verify",)):
        found = world.byre("replay", *words, "-o", "json")
        assert (found.code, found.json["differences"], found.json["disks"]) == (0, [], 2)
    found = world.byre("replay", "--archive", file, "-o", "json").json
    assert (found["since"], found["events"]) == (0, len(whole) + 1)
    assert world.byre("log", "verify").code == 0
    assert world.byre("restore", "sb-1", "--wait").code == 0, "the disk lives on"
    info = world.byre("log", "info", "-o", "json").json
    assert (info["first_seq"], info["archives"][0]["file"]) == (len(whole) + 1, str(file))
    assert world.byre("log", "vacuum").code == 0
    assert world.byre("log", "archive", tmp_path / "none", "--before", "1 hour ago").code == 0
    assert not (tmp_path / "none").exists()


def test_an_archived_log_is_replayed_and_salvaged_into_others(world: World, tmp_path: Path) -> None:
    whole, file = events_of(world), tmp_path / "old"
    world.byre("log", "archive", file, "--before", "0s")
    for name, words in (("short", ()), ("long", ("--archive", file))):
        target = tmp_path / name / "byre.db"
        assert world.byre("replay", *words, "--into", target).code == 0
        with EventLog(target, read_only=True) as made:
            assert made.begins_after().seq == (len(whole) if name == "short" else 0)
            assert {record.name for record in made.records()} == {"sb-1", "sb-2"}
    assert world.byre("log", "salvage", tmp_path / "kept" / "byre.db").code == 0
    world.root = tmp_path / "kept"
    assert world.byre("replay").code == 0
    assert world.byre("log", "verify").code == 0


def test_an_archive_of_another_log_is_refused(world: World, tmp_path: Path) -> None:
    file, mine = tmp_path / "old", world.root
    world.byre("log", "archive", file, "--before", "0s")
    world.root = world.folder / "another"
    world.create("sb-1", "--wait")
    answer = world.byre("get", "--at-seq", "1", "--archive", file)
    assert (answer.code, "archive of root" in answer.err) == (2, True)
    world.root = mine
    assert world.byre("get", "--at-seq", "1", "--archive", mine / "byre.db").code == 6


def test_history_timeline_and_export_go_back_into_archives(world: World, tmp_path: Path) -> None:
    file = tmp_path / "old"
    before = world.byre("history", "sb-1", "-o", "jsonl").lines
    spans = world.byre("timeline", "sb-2", "-o", "json").json["generations"]
    world.byre("log", "archive", file, "--before", "0s")
    bare = world.byre("history", "sb-1", "-o", "jsonl")
    assert (bare.lines, "name them with --archive" in bare.err) == ([], True)
    told = world.byre("history", "sb-1", "--archive", file, "-o", "jsonl")
    assert (told.lines, "--archive" in told.err) == (before, False)
    seq = world.byre("log", "info", "-o", "json").json["last_seq"]
    page = ("--newest-first", "--limit", "2", "-o", "jsonl")
    back = world.byre("history", "--archive", file, *page)
    assert [line["seq"] for line in back.lines] == [seq, seq - 1]
    on = world.byre("history", "--archive", file, "--before", str(seq - 1), *page)
    assert [line["seq"] for line in on.lines] == [seq - 2, seq - 3]
    found = world.byre("timeline", "sb-2", "--archive", file, "-o", "json").json
    assert found["generations"] == spans
    summary = world.byre("history", "--summary", "--archive", file, "-o", "json").json
    assert summary["events"] == seq
    exported = world.byre("log", "export", "sb-1", "--archive", file)
    assert [line["seq"] for line in exported.lines] == [line["seq"] for line in before]


def test_a_question_refuses_an_archive_of_another_root(world: World, tmp_path: Path) -> None:
    file = tmp_path / "old"
    world.byre("log", "archive", file, "--before", "0s")
    world.root = world.folder / "another"
    world.create("sb-1", "--wait")
    for words in (("history",), ("log", "export"), ("timeline", "sb-1")):
        answer = world.byre(*words, "--archive", file)
        assert (answer.code, answer.out, str(file) in answer.err) == (2, "", True)

"""Commands that ask: history, the past, plans, explanations, proofs, and help."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from reconciler.cli.app import cli
from statemachine.schema import EVENT_COLUMNS
from tests.unit.builders import LINK
from tests.unit.cliworld import World


@pytest.fixture
def world(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> World:
    made = World(folder, monkeypatch, capsys)
    made.create("sb-1", "--link", LINK, "--reason", "for a test")
    return made


def edit(world: World, statement: str) -> None:
    """Change the log as somebody would who wants to: without the triggers."""
    with contextlib.closing(sqlite3.connect(world.root / "byre.db")) as raw, raw:
        raw.execute("DROP TRIGGER events_no_update")
        raw.execute(statement)


# --- history --------------------------------------------------------------------------------------


def test_history_has_the_columns_of_the_log_one_event_a_line(world: World) -> None:
    lines = world.byre("history", "sb-1", "-o", "jsonl").lines
    assert [list(EVENT_COLUMNS)] * 5 == [list(line) for line in lines]
    transition = ["transition.started", "transition.completed"]
    assert [line["type"] for line in lines] == ["disk.declared", *transition, *transition]
    assert lines[0]["reason"] == "for a test"
    assert {"sb-1"} == {line["disk"] for line in lines}
    assert lines == world.byre("history", "sb-1", "-o", "json").json


def test_one_request_has_one_correlation_id(world: World) -> None:
    world.byre("pause", "sb-1", "--wait")
    lines = world.byre("history", "sb-1", "-o", "jsonl").lines
    ids = [line["correlation_id"] for line in lines]
    assert (len(set(ids[:5])), len(set(ids[5:])), len(set(ids))) == (1, 1, 2)


def test_history_is_chosen_by_type_actor_and_time(world: World) -> None:
    lines = world.byre("history", "-o", "jsonl").lines
    middle = lines[3]["at"]

    def seqs(*arguments: str) -> list[int]:
        return [line["seq"] for line in world.byre("history", *arguments, "-o", "jsonl").lines]

    assert [each["seq"] for each in lines if each["type"].startswith("transition.")] == seqs(
        "--type", "transition"
    )
    assert seqs("--type", "transit") == []
    assert [each["seq"] for each in lines if each["actor"] == "reconciler"] == seqs(
        "--actor", "reconciler"
    )
    assert [each["seq"] for each in lines if each["at"] >= middle[:26]] == seqs(
        "--since", middle[:26] + "+00:00"
    )
    assert seqs("--until", "2 hours ago") == []
    assert len(lines) == len(seqs("--since", "2 hours ago"))


def test_a_table_for_people_goes_to_stderr(world: World) -> None:
    answer = world.byre("history")
    assert (answer.code, answer.out) == (0, "")
    assert "attach: absent → attached" in answer.err


# --- the past -------------------------------------------------------------------------------------


def test_get_shows_each_earlier_moment(world: World) -> None:
    world.byre("remove", "sb-1", "--wait")
    lines = world.byre("history", "sb-1", "-o", "jsonl").lines
    states = {"attach": "attached", "snapshot": "snapshotted", "remove": "removed"}
    for line in lines:
        if line["type"] == "transition.completed":
            [disk] = world.byre("get", "sb-1", "--at-seq", str(line["seq"]), "-o", "json").json
            assert states[line["data"]["trigger"]] == disk["state"]
    assert world.byre("get", "--at-seq", "0", "-o", "json").json == []
    assert world.byre("get", "--at", "1 hour ago", "-o", "json").json == []
    assert world.byre("get", "sb-1", "--at", "1 hour ago").code == 3


def test_a_clock_that_went_back_does_not_make_the_past_unreadable(world: World) -> None:
    edit(world, "UPDATE events SET at = at + 3600000000000 WHERE seq = 1")
    soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    [disk] = world.byre("get", "--at", soon, "-o", "json").json
    assert disk["state"] == "snapshotted"


# --- plans and explanations -----------------------------------------------------------------------


def test_a_plan_of_a_converged_host_is_empty(world: World) -> None:
    [row] = world.byre("plan", "-o", "json").json
    assert (
        row["triggers"], row["actions"], row["why"]
    ) == ([], [], "it is snapshotted, as desired")  # fmt: skip


def test_a_plan_tells_of_drift_and_changes_nothing(world: World) -> None:
    world.kernel.remove_dm_by_hand("byre-sb-1")
    points, seq = world.kernel.faults.points, world.seq()
    [row] = world.byre("plan", "-o", "json").json
    assert (row["triggers"], row["why"].startswith("drift: ")) == (["lose", "restore"], True)
    assert (points, seq) == (world.kernel.faults.points, world.seq())


def test_explain_names_the_holder(world: World) -> None:
    with world.kernel.open("/dev/mapper/byre-sb-1"):
        world.byre("pause", "sb-1", "--wait", "--timeout", "0.2")
        row = world.byre("explain", "sb-1", "-o", "json").json
    assert (
        row["desired"], row["state"], row["holders"], row["observed"]["open_count"]
    ) == ("paused", "snapshotted", ["process sim-user (pid 4242)"], 1)  # fmt: skip
    assert "in use by process sim-user" in row["blocker"]
    assert row["next_retry_at"] is not None
    assert (row["in_use"]["on_busy"], row["in_use"]["overdue"]) == ("wait", False)
    assert row["in_use"]["since"] < row["in_use"]["deadline_at"]
    row = world.byre("explain", "sb-1", "-o", "json").json
    assert row["holders"] == [], "those of now, not those of the first look"


# --- proofs ---------------------------------------------------------------------------------------


def test_verify_names_the_first_bad_event(world: World) -> None:
    answer = world.byre("log", "verify", "-o", "json").json
    assert (answer["events"], answer["events"]) == (answer["seq"], world.seq())
    edit(world, "UPDATE events SET actor = 'nobody' WHERE seq = 3")
    refused = world.byre("log", "verify")
    assert (refused.code, refused.out) == (6, "")
    assert "event 3 was edited" in refused.err


def test_replay_finds_a_record_that_was_edited_and_repairs_it(world: World) -> None:
    edit(world, "UPDATE disks SET record = json_set(record, '$.state', 'paused')")
    answer = world.byre("replay", "-o", "json")
    assert (
        answer.code, answer.json["differences"]
    ) == (1, ["sb-1: state: recorded paused, replayed snapshotted"])  # fmt: skip
    assert world.byre("replay", "--repair").code == 0
    assert world.byre("replay", "--verify").code == 0


def test_replay_compares_with_the_kernel(world: World) -> None:
    world.kernel.remove_dm_by_hand("byre-sb-1")
    answer = world.byre("replay", "--verify", "-o", "json")
    assert (answer.code, answer.json["differences"], len(answer.json["drift"])) == (1, [], 1)


def test_replay_takes_no_disk_for_different_that_is_moved_meanwhile(world: World) -> None:
    """A reconciler works on while somebody asks; the look and the record are of two moments."""
    calls: list[object] = []

    def pause(call: object) -> None:
        calls.append(call)
        if len(calls) == 1:
            assert world.byre("pause", "sb-1", "--wait").code == 0

    world.kernel.faults.hook("dm", pause, about="byre-sb-1")
    answer = world.byre("replay", "--verify", "-o", "json")
    assert len(calls) > 1
    assert (answer.json["drift"], answer.json["differences"], answer.code) == ([], [], 0)


def test_a_newer_log_is_refused(world: World) -> None:
    with contextlib.closing(sqlite3.connect(world.root / "byre.db")) as raw, raw:
        raw.execute("PRAGMA user_version = 99")
    for command in (["get"], ["pause", "sb-1"], ["log", "verify"]):
        answer = world.byre(*command)
        assert (answer.code, "newer byre" in answer.err) == (4, True)


# --- help -----------------------------------------------------------------------------------------


def commands() -> list[list[str]]:
    context = click.Context(cli)
    found: list[list[str]] = []
    for name in cli.list_commands(context):
        found.append([name])
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            found += [[name, each] for each in command.list_commands(context)]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_an_example_that_names_it(world: World, command: list[str]) -> None:
    answer = world.byre(*command, "--help")
    assert answer.code == 0
    assert "Example" in answer.out
    assert f"byre {' '.join(command)}" in answer.out.split("Example")[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_completion(world: World, shell: str) -> None:
    answer = world.byre("completion", shell)
    assert (answer.code, "_BYRE_COMPLETE" in answer.out) == (0, True)


def test_disk_names_are_completed(world: World) -> None:
    from reconciler.cli.options import complete_names  # noqa: PLC0415

    world.create("other")
    context = click.Context(cli)
    context.params["root"] = str(world.root)
    argument = click.Argument(["name"])
    assert complete_names(context, argument, "sb") == ["sb-1"]
    assert complete_names(context, argument, "") == ["other", "sb-1"]


@pytest.mark.parametrize("command", [("get",), ("history",), ("log", "verify"), ("plan",)])
def test_the_root_may_be_named_behind_the_command(
    world: World, tmp_path: Path, command: tuple[str, ...]
) -> None:
    world.create("sb-1")
    world.root, root = tmp_path / "another", world.root
    answer = world.byre(*command, "--root", root)
    assert answer.code == 0
    assert "sb-1" in answer.err or "events" in answer.err

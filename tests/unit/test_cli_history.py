"""`byre history`: filters, order, pages, forms, summaries; and who asked, and for whom."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import click
import pytest

from reconciler import requester
from reconciler.cli import printing
from reconciler.cli.app import cli
from statemachine.schema import EVENT_COLUMNS
from tests.unit.cliworld import Answer, World


@pytest.fixture
def world(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> World:
    made = World(folder, monkeypatch, capsys)
    made.create("sb-1", "--reason", "for a test", "--on-behalf-of", "tenant 7")
    made.create("sb-2")
    made.byre("pause", "sb-1", "--wait")
    return made


def seqs(answer: Answer) -> list[int]:
    assert answer.code == 0, answer.err
    return [line["seq"] for line in answer.lines]


def test_the_newest_come_first_and_pages_go_on_where_the_answer_says(world: World) -> None:
    whole = seqs(world.byre("history", "-o", "jsonl"))
    assert whole[::-1] == seqs(world.byre("history", "--newest-first", "-o", "jsonl"))
    for order, place in (((), "--after"), (("--newest-first",), "--before")):
        found, more = list[int](), tuple[str, ...]()
        while True:
            answer = world.byre("history", "--limit", "4", *order, *more, "-o", "jsonl")
            found += seqs(answer)
            if not answer.err:
                break
            assert f"{place} {found[-1]}" in answer.err
            more = (place, str(found[-1]))
        assert (whole[::-1] if order else whole) == found


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("--trigger", "pause"), {"transition.started", "transition.completed"}),
        (("--outcome", "completed"), {"transition.completed"}),
        (("--outcome", "failed"), set()),
        (("--text", "FOR A"), {"disk.declared"}),
        (("--text", '"trigger":"PAUSE'), {"transition.started", "transition.completed"}),
        (("--on-behalf-of", "tenant 7"), {"disk.declared"}),
        (("--on-behalf-of", "tenant"), set()),
        (("--actor", f"uid:{os.getuid()}"), {"disk.declared"}),
        (("--generation", "2"), set()),
        (("--since", "2000-01-01", "--until", "2000-01-02"), set()),
    ],
)
def test_history_is_chosen(world: World, options: tuple[str, ...], wanted: set[str]) -> None:
    lines = world.byre("history", *options, "-o", "jsonl").lines
    assert wanted == {line["type"] for line in lines}


def test_a_request_is_told_whole_by_its_first_digits(world: World) -> None:
    lines = world.byre("history", "-o", "jsonl").lines
    paused = [line for line in lines if line["data"].get("trigger") == "pause"]
    story = paused[0]["correlation_id"]
    wanted = [line["seq"] for line in lines if line["correlation_id"] == story]
    assert (len(wanted), lines[wanted[0] - 1]["type"]) == (3, "disk.declared")
    for length in (4, 8, 12, 32):
        answer = world.byre("history", "--correlation", story[:length].upper(), "-o", "jsonl")
        assert wanted == seqs(answer)
    assert story[:8] in world.byre("history", "sb-1").err
    refused = world.byre("history", "--correlation", "sb-1")
    assert (refused.code, "4 to 32 hex digits" in refused.err) == (2, True)


def test_a_drift_and_its_repair_are_a_story_of_their_own(world: World) -> None:
    before = world.seq()
    world.kernel.remove_dm_by_hand("byre-sb-2")
    world.byre("run", "--once")
    after = world.byre("history", "sb-2", "--after", str(before), "-o", "jsonl").lines
    assert [line["type"] for line in after] == [
        "drift.detected",
        "transition.started",
        "transition.completed",
    ]
    [story] = {line["correlation_id"] for line in after}
    created = world.byre("history", "sb-2", "-o", "jsonl").lines[0]["correlation_id"]
    assert story != created
    assert [e["seq"] for e in after] == seqs(
        world.byre("history", "--correlation", story, "-o", "jsonl")
    )
    assert world.byre("replay").code == 0


def test_csv_is_rfc_4180_with_one_header(world: World) -> None:
    world.byre("remove", "sb-2", "--reason", 'a "quote", a comma\nand a line')
    answer = world.byre("history", "-o", "csv")
    assert "\r\n" in answer.out
    assert answer.err == ""
    header, *rows = csv.reader(io.StringIO(answer.out, newline=""), strict=True)
    assert list(EVENT_COLUMNS) == header
    lines = world.byre("history", "-o", "jsonl").lines
    for row, line in zip(rows, lines, strict=True):
        found = dict(zip(header, row, strict=True))
        assert json.loads(found.pop("data")) == line.pop("data")
        assert {key: str(value) for key, value in line.items()} == found


def test_a_long_table_has_one_header_and_a_reason_cannot_drive_the_terminal(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printing, "ROWS_AT_ONCE", 2)
    world.byre("remove", "sb-2", "--reason", "red \x1b[31m\nnext\u202e")
    answer = world.byre("history")
    assert (answer.out, answer.err.count("REQUEST")) == ("", 1)
    assert len(answer.err.splitlines()) == world.seq() + 1
    assert r"red \x1b[31m\nnext\u202e" in answer.err


@pytest.mark.parametrize(
    "options",
    [
        ("--follow", "--newest-first"),
        ("--follow", "--limit", "3"),
        ("--follow", "--before", "3"),
        ("--follow", "--summary"),
        ("--summary", "--limit", "3"),
        ("--summary", "-o", "csv"),
        ("--outcome", "nearly"),
        ("--trigger", "jump"),
        ("--limit", "0"),
    ],
)
def test_what_makes_no_sense_is_refused(world: World, options: tuple[str, ...]) -> None:
    answer = world.byre("history", *options)
    assert (answer.code, answer.out) == (2, "")


# --- summary --------------------------------------------------------------------------------------


def test_a_summary_counts_what_history_tells(world: World) -> None:
    told = world.byre("history", "--summary", "-o", "json").json
    lines = world.byre("history", "-o", "jsonl").lines
    completed = [line for line in lines if line["type"] == "transition.completed"]
    mine = [line for line in completed if line["disk"] == "sb-1"]
    disk = told["disks"]["sb-1"]
    assert (len(lines), len(mine), 0) == (told["events"], disk["transitions"], disk["failures"])
    slowest = max(mine, key=lambda line: (line["data"].get("duration_ns", 0), -line["seq"]))
    assert slowest["seq"] == disk["slowest"]["seq"]
    assert {"absent", "attached", "snapshotted", "paused"} == set(disk["in_state_ns"])
    assert {name: each["completed"] for name, each in told["triggers"].items()} == {
        "attach": 2,
        "snapshot": 2,
        "pause": 1,
    }
    assert sum(sum(each.values()) for each in told["actors"].values()) == len(lines)
    filtered = world.byre("history", "sb-2", "--summary", "-o", "json").json
    assert list(filtered["disks"]) == ["sb-2"]


def test_a_summary_for_people_is_made_of_tables(world: World) -> None:
    answer = world.byre("history", "--summary")
    assert answer.out == ""
    assert {"DISK", "TRIGGER", "ACTOR"} <= set(answer.err.split())
    assert "no events fit" in world.byre("history", "--summary", "--until", "3d").err


# --- who ------------------------------------------------------------------------------------------


def test_who_asked_is_recorded_and_for_whom_as_a_claim(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    by = requester.this_process()
    world.byre("remove", "sb-2", "--on-behalf-of", "tenant 7/job 12")
    data = world.byre("history", "sb-2", "--newest-first", "-o", "jsonl").lines[0]["data"]
    assert data["on_behalf_of"] == "tenant 7/job 12"
    assert (data["spec"], data["why"]) == ({"state": "removed"}, "command")
    who = data["by"]
    assert (by.uid, by.user, os.getpid(), "alice") == (
        who["uid"], who["user"], who["pid"], who["sudo_user"]
    )  # fmt: skip
    assert f"{by.user} for tenant 7/job 12" in world.byre("history", "sb-2").err


@pytest.mark.parametrize("claim", ["x" * 201, "two\nlines", "\x1b[31mred", "nul\x00"])
@pytest.mark.parametrize("command", [("pause", "sb-1"), ("retry", "sb-1"), ("orphans",)])
def test_a_claim_is_short_plain_text(world: World, claim: str, command: tuple[str, ...]) -> None:
    before = world.seq()
    answer = world.byre(*command, "--on-behalf-of", claim)
    assert (answer.code, "200 characters" in answer.err) == (2, True)
    assert before == world.seq()


def test_whoever_asks_for_a_disk_may_say_for_whom() -> None:
    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    takes = {
        name: {option.name for option in command.params} & {"reason", "on_behalf_of"}
        for name, command in commands.items()
        if command is not None
    }
    copies = {"flatten", "export"}  # they ask for no disk; they tell of a file that is there
    without = {name for name, options in takes.items() if options == {"reason"}}
    assert copies == without
    assert len([name for name, options in takes.items() if len(options) == 2]) >= 8


def test_who_logged_in_is_said_when_it_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requester, "_login_uid", lambda: 4_000_000_000)
    assert requester.this_process().login_user == "4000000000"
    monkeypatch.setattr(requester, "_login_uid", os.getuid)
    assert requester.this_process().login_user == ""

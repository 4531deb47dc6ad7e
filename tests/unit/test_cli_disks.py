"""Commands that say what should be, and those that show it: answers, channels, exit codes."""

from __future__ import annotations

import errno
import io
import sys
from pathlib import Path

import pytest

from reconciler.lock import RootLock
from tests.unit.builders import BASE, LINK
from tests.unit.cliworld import World


@pytest.fixture
def world(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> World:
    return World(folder, monkeypatch, capsys)


def toml(*names: str, more: str = "") -> str:
    return "".join(f'[[disk]]\nname = "{name}"\nbase = "{BASE}"\n{more}' for name in names)


def state_of(world: World, name: str = "sb-1") -> str:
    return str(world.byre("get", name, "-o", "json").json[0]["state"])


# --- the life of a disk ---------------------------------------------------------------------------


def test_the_whole_life_by_commands(world: World) -> None:
    created = world.create("sb-1", "--link", LINK)
    assert (created.code, created.out) == (0, "")
    assert "snapshotted at /dev/mapper/byre-sb-1" in created.err
    for command, state in (("pause", "paused"), ("restore", "restored"), ("remove", "removed")):
        assert world.byre(command, "sb-1", "--wait").code == 0
        assert state == state_of(world)
    assert (world.kernel.loops(), world.kernel.dm_names()) == ((), ())
    assert world.byre("replay", "--verify").code == 0


def test_a_disk_in_use_is_given_up_where_its_spec_says_so(world: World) -> None:
    world.create("sb-1", "--on-busy", "fail", "--busy-timeout", "0.2")
    with world.kernel.open("/dev/mapper/byre-sb-1"):
        answer = world.byre("pause", "sb-1", "--wait")
        assert answer.code == 1
        assert "in use by process sim-user (pid 4242), longer than 0.2 s: given up" in answer.err
        assert "byre retry sb-1" in answer.err
    assert state_of(world) == "snapshotted"
    assert world.byre("pause", "sb-1", "--wait").code == 0


def test_get_has_at_least_the_fields_of_the_contract(world: World) -> None:
    world.create("sb-1", "--link", LINK)
    [disk] = world.byre("get", "-o", "json").json
    fields = [
        "name",
        "id",
        "generation",
        "state",
        "desired",
        "driver",
        "device",
        "link",
        "base",
        "cow",
        "conditions",
        "attempts",
        "next_retry_at",
        "seq",
        "version",
    ]
    assert [field for field in fields if field not in disk] == []
    assert {"path", "used_bytes", "capacity_bytes"} <= set(disk["cow"])
    assert {"type", "status", "reason", "message", "since"} <= set(disk["conditions"][0])
    assert ("live", str(LINK), str(BASE), 1, 0, None) == (
        disk["desired"], disk["link"], disk["base"],
        disk["generation"], disk["attempts"], disk["next_retry_at"],
    )  # fmt: skip


def test_without_wait_a_command_only_says_what_is_wanted(world: World) -> None:
    answer = world.byre("create", "sb-1", "--base", BASE)
    assert (answer.code, answer.out) == (0, "")
    assert "no reconciler is running" in answer.err
    assert (state_of(world), world.kernel.loops()) == ("absent", ())


def test_what_is_said_twice_is_recorded_once(world: World) -> None:
    world.create()
    seq = world.seq()
    assert "sb-1: unchanged" in world.create().err
    assert seq == world.seq()


def test_answers_are_json_on_stdout_and_nothing_else(world: World) -> None:
    [disk] = world.create("sb-1", "-o", "json").json
    assert (disk["name"], disk["changed"]) == ("sb-1", True)
    for command in (
        ["get"], ["history"], ["plan"], ["explain", "sb-1"], ["replay"], ["log", "verify"],
        ["orphans"], ["pause", "sb-1", "--wait"], ["retry", "sb-1"],
    ):  # fmt: skip
        assert world.byre(*command).out == "", command
        assert world.byre(*command, "-o", "json").json is not None


# --- exit codes -----------------------------------------------------------------------------------


def test_an_unknown_disk_is_3(world: World) -> None:
    world.create()
    for command in ("get", "pause", "restore", "remove", "retry", "history", "explain"):
        answer = world.byre(command, "sb-9")
        assert (answer.code, answer.out) == (3, ""), command
        assert "no such disk: 'sb-9'" in answer.err


def test_a_set_with_one_unknown_disk_records_nothing(world: World) -> None:
    world.create()
    seq = world.seq()
    assert world.byre("pause", "sb-1", "sb-9").code == 3
    assert seq == world.seq()


def test_an_illegal_transition_is_4_and_names_both(world: World) -> None:
    world.create()
    world.byre("remove", "sb-1", "--wait")
    seq = world.seq()
    for command in ("pause", "restore", "remove"):
        answer = world.byre(command, "sb-1")
        if command == "remove":
            assert answer.code == 0
            continue
        assert answer.code == 4
        assert f"cannot {command} a disk that is removed" in answer.err
    assert seq == world.seq()


def test_a_foreign_device_is_4_with_wait(world: World) -> None:
    world.kernel.add_foreign_dm("byre-sb-1")
    answer = world.create()
    assert (answer.code, answer.out) == (4, "")
    assert "is not ours" in answer.err


def test_a_failure_is_1_with_wait(world: World) -> None:
    world.kernel.faults.fail("dm_load", errno.EIO, times=None)
    assert world.create().code == 1


def test_a_deadline_is_5_and_names_what_is_waited_for(world: World) -> None:
    world.kernel.faults.fail("create_sparse", errno.ENOSPC, times=None)
    answer = world.byre("create", "sb-1", "--base", BASE, "--wait", "--timeout", "0.3")
    assert answer.code == 5
    assert "No space left" in answer.err


def test_another_base_for_a_disk_with_data_is_4(world: World) -> None:
    world.create()
    world.kernel.make_file("/srv/other.ext4", 4096)
    assert world.byre("create", "sb-1", "--base", "/srv/other.ext4").code == 4


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["create", "Bad", "--base", str(BASE)], "allowed"),
        (["create", "a/b", "--base", str(BASE)], "allowed"),
        (["create", "..", "--base", str(BASE)], "allowed"),
        (["create", "a\nb", "--base", str(BASE)], "allowed"),
        (["create", "a" * 64, "--base", str(BASE)], "allowed"),
        (["create", "", "--base", str(BASE)], "allowed"),
        (["create", "a", "--base", "/srv/missing.img"], "no such file"),
        (["create", "a", "--base", "/srv"], "a folder"),
        (["create", "a", "--base", ""], "'base'"),
        (["create", "a", "--base", str(BASE), "--link", "/a/../b"], "without '..'"),
        (["create", "a", "--base", str(BASE), "--desired", "removed"], "removed"),
        (["create", "a"], "--base"),
        (["create", "a", "--base", str(BASE), "--timeout", "-1", "--wait"], "timeout"),
        (["apply", "-f", "/srv/missing.toml"], "No such file"),
        (["apply"], "--file"),
        (["pause"], "NAME"),
        (["pause", ""], "allowed"),
        (["get", "--at", "yesterdayish"], "not a time"),
        (["get", "--at-seq", "-1"], "at-seq"),
        (["get", "--watch", "--at-seq", "1"], "--watch"),
        (["nonsense"], "nonsense"),
        (["--device-prefix", "a/b", "get"], "device_prefix"),
    ],
)
def test_a_bad_call_is_2_and_makes_no_root(world: World, arguments: list[str], word: str) -> None:
    answer = world.byre(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert word in answer.err
    assert "Traceback" not in answer.err
    assert not (world.root / "byre.db").exists() or world.seq() == 0


def test_a_damaged_log_is_6(world: World) -> None:
    world.root.mkdir()
    (world.root / "byre.db").write_bytes(b"no database " * 500)
    for command in (["get"], ["create", "a", "--base", str(BASE)], ["log", "verify"], ["replay"]):
        assert world.byre(*command).code == 6


# --- spec files -----------------------------------------------------------------------------------


def test_apply_is_all_or_nothing(world: World) -> None:
    path = world.spec(toml("sb-1") + '[[disk]]\nname = "sb-2"\nbase = "/srv/missing"\n')
    answer = world.byre("apply", "-f", path, "--wait")
    assert (answer.code, "disk 'sb-2': field 'base'" in answer.err) == (2, True)
    assert world.byre("get", "--all", "-o", "json").json == []


def test_apply_brings_many_disks_and_prune_takes_the_others_away(world: World) -> None:
    path = world.spec(toml("sb-1", "sb-2", "sb-3"))
    assert world.byre("apply", "-f", path, "--wait").code == 0
    world.spec(toml("sb-2"))
    assert world.byre("apply", "-f", path, "--wait").code == 0
    assert len(world.byre("get", "-o", "json").json) == 3, "what is not named stays"
    assert world.byre("apply", "-f", path, "--prune", "--wait").code == 0
    assert [disk["name"] for disk in world.byre("get", "-o", "json").json] == ["sb-2"]
    assert len(world.byre("get", "--all", "-o", "json").json) == 3


def test_apply_reads_standard_input(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(toml("sb-1")))
    assert world.byre("apply", "-f", "-", "--wait").code == 0
    assert state_of(world) == "snapshotted"


def test_plan_of_a_spec_on_a_root_that_does_not_exist_changes_nothing(world: World) -> None:
    answer = world.byre("plan", "-f", world.spec(toml("sb-1")), "-o", "json")
    [row] = answer.json
    assert (answer.code, row["triggers"]) == (0, ["attach", "snapshot"])
    assert any("make CoW file" in action for action in row["actions"])
    assert (world.root.exists(), world.kernel.faults.changes) == (False, ())


def test_questions_to_a_root_that_does_not_exist_make_none(world: World) -> None:
    for command in (["get"], ["history"], ["plan"], ["replay"], ["log", "verify"], ["orphans"]):
        assert world.byre(*command).code == 0, command
    assert not world.root.exists()


def test_a_root_that_somebody_works_on_is_left_to_them(world: World) -> None:
    world.create()
    lock = RootLock(world.root / "reconciler.lock")
    with lock:
        answer = world.byre("run", "--once")
        assert (answer.code, "another reconciler" in answer.err) == (1, True)
        waited = world.byre("pause", "sb-1", "--wait", "--timeout", "0.2")
        assert (waited.code, state_of(world)) == (5, "snapshotted")
    assert world.byre("run", "--once").code == 0
    assert state_of(world) == "paused"


def test_run_once_on_a_converged_host_records_nothing(world: World) -> None:
    path = world.spec(toml("sb-1"))
    assert world.byre("run", "--once", "--specs", path).code == 0
    seq, points = world.seq(), world.kernel.faults.points
    assert world.byre("run", "--once", "--specs", path).code == 0
    assert (seq, points) == (world.seq(), world.kernel.faults.points)


def test_a_reason_that_is_no_text_is_recorded_as_far_as_it_is(world: World) -> None:
    assert world.byre("create", "sb-1", "--base", BASE, "--reason", "\udcffwhy").code == 0
    assert world.byre("history", "-o", "jsonl").lines[-1]["reason"] == "?why"


def test_a_link_of_another_live_disk_is_refused_until_that_one_is_paused(world: World) -> None:
    assert world.create("sb-1", "--link", LINK).code == 0
    taken = world.create("sb-2", "--link", LINK)
    assert (taken.code, "belongs to disk 'sb-1'" in taken.err) == (4, True)
    assert world.byre("get", "sb-2").code == 3
    assert world.byre("pause", "sb-1", "--wait").code == 0
    assert world.create("sb-2", "--link", LINK).code == 0

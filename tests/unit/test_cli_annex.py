"""`byre import wrenn|arcbox|ignite`: what it shows, what it says, with which exit code it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.builders import BASE
from tests.unit.cliworld import World
from tests.unit.strays import add_foreign_snapshot

COW = Path("/var/lib/wrenn/sandboxes/cl-1/rootfs.cow")


@pytest.fixture
def world(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> World:
    return World(folder, monkeypatch, capsys)


def test_a_dry_run_shows_all_and_makes_not_even_a_root(world: World) -> None:
    add_foreign_snapshot(world.kernel, "wrenn-cl-1", COW)
    answer = world.byre(
        "--root", world.folder / "new", "import", "wrenn", "--dry-run", "-o", "json"
    )
    [shown] = answer.json
    assert (answer.code, shown["name"], shown["disk"]) == (0, "wrenn-cl-1", "cl-1")
    assert (shown["cow"], shown["base"], shown["table"]) == (str(COW), str(BASE), "P 8")
    assert (shown["can"], shown["why_not"], shown["open_count"]) == (True, None, 0)
    assert not world.root.exists()
    told = world.byre("import", "wrenn", "--dry-run").err
    assert "can be taken over" in told
    assert str(COW) in told


def test_nothing_there_is_no_failure(world: World) -> None:
    answer = world.byre("import", "ignite", "--dry-run")
    assert (answer.code, answer.err) == (0, "nothing of ignite is on this host\n")
    assert world.byre("import", "arcbox", "-o", "json").json == []


def test_what_can_be_taken_is_taken_and_the_rest_is_told(world: World) -> None:
    add_foreign_snapshot(world.kernel, "wrenn-cl-1", COW)
    add_foreign_snapshot(world.kernel, "wrenn-CL-2", COW.parents[1] / "CL-2" / "rootfs.cow")
    answer = world.byre("import", "wrenn", "--reason", "we move", "-o", "json")
    assert answer.code == 4
    assert "wrenn-cl-1: taken over, disk cl-1 is restored" in answer.err
    assert "wrenn-CL-2 cannot be taken over" in answer.err
    assert {row["name"]: row["is_taken"] for row in answer.json} == {
        "wrenn-cl-1": True,
        "wrenn-CL-2": False,
    }
    answer = world.byre("import", "wrenn", "CL-2", "--as", "cl-2")
    assert (answer.code, world.byre("get", "cl-2", "-o", "json").json[0]["state"]) == (
        0,
        "restored",
    )
    again = world.byre("import", "wrenn")
    assert (again.code, again.err.count("already")) == (0, 2)


@pytest.mark.parametrize(
    "words",
    [
        ("sb-1",),
        ("wrenn", "no-such"),
        ("sb-1", "--delta", "sb-1.delta"),
        ("sb-1", "--delta", "sb-1.delta", "--base", str(BASE), "--dry-run"),
        ("sb-1", "other", "--delta", "sb-1.delta", "--base", str(BASE)),
    ],
)
def test_words_that_do_not_go_together_are_refused(world: World, words: tuple[str, ...]) -> None:
    assert world.byre("import", *words).code == 2

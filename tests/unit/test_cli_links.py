"""`byre link`, and the node in a jail as an option of `byre create`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.builders import BASE, LINK, NODE
from tests.unit.cliworld import World


@pytest.fixture
def world(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> World:
    return World(folder, monkeypatch, capsys)


def test_a_link_goes_to_another_disk_by_command(world: World) -> None:
    world.create("sb-1", "--link", LINK)
    world.create("sb-2")
    answer = world.byre("link", "sb-2", "--from", "sb-1", "--wait", "-o", "json")
    assert answer.code == 0
    assert [(row["name"], row["link"]) for row in answer.json] == [
        ("sb-1", None),
        ("sb-2", str(LINK)),
    ]
    assert world.kernel.look_at_link(LINK).target == "/dev/mapper/byre-sb-2"
    again = world.byre("link", "sb-2", "--from", "sb-1")
    assert (again.code, again.err) == (0, "sb-1: unchanged\nsb-2: unchanged\n")


def test_what_byre_link_refuses_has_its_exit_code(world: World) -> None:
    world.create("sb-1", "--link", LINK)
    world.create("sb-2")
    seq = world.seq()
    assert world.byre("link", "sb-1", "--from", "sb-1").code == 2
    assert world.byre("link", "sb-9", "--from", "sb-1").code == 3
    assert world.byre("link", "sb-1", "--from", "sb-2").code == 4
    assert world.seq() == seq


def test_a_jail_is_an_option_of_create(world: World) -> None:
    root = NODE.parents[1]
    assert world.create("sb-1", "--jail", f"{root}:dev/rootfs:1001:1002").code == 0
    node = world.kernel.look_at_link(NODE)
    assert node.target == str(world.kernel.dm("byre-sb-1").device)  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["/srv/jail", "/srv/jail:rootfs:me:1", "/srv/jail:rootfs:1:²"])
def test_a_jail_that_is_none_is_named_with_what_is_allowed(world: World, text: str) -> None:
    answer = world.byre("create", "sb-1", "--base", BASE, "--jail", text)
    assert answer.code == 2
    assert "ROOT:NODE:UID:GID" in answer.err

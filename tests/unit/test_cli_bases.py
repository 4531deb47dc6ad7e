"""`byre base` and the ends of disks by commands: what is said where, and the exit codes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.unit.builders import BASE, MIB
from tests.unit.cliworld import World

SHA256 = hashlib.sha256(b"base".ljust(MIB, b"\0")).hexdigest()


@pytest.fixture
def world(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> World:
    return World(folder, monkeypatch, capsys)


def test_a_base_from_its_addition_to_its_removal(world: World) -> None:
    added = world.byre("base", "add", BASE, "--copy", "-o", "json")
    assert (added.code, added.json["name"], added.json["sha256"]) == (0, "base", SHA256)
    assert (added.json["changed"], added.json["copied_from"]) == (True, str(BASE))
    assert "fs-verity: off:" in added.err
    assert world.byre("base", "add", BASE, "--copy", "-o", "json").json["changed"] is False
    assert world.byre("create", "sb-1", "--base", "base:base", "--wait").code == 0
    [listed] = world.byre("base", "list", "-o", "json").json
    assert (listed["condition"], listed["disks"]) == ("intact", ["sb-1"])
    refused = world.byre("base", "remove", "base")
    assert (refused.code, "in use by sb-1" in refused.err) == (4, True)
    assert world.byre("remove", "sb-1", "--wait").code == 0
    assert world.byre("base", "remove", f"sha256:{SHA256}", "-o", "json").json[0]["name"] == "base"
    assert world.byre("base", "list", "-o", "json").json == []
    types = [event["type"] for event in world.byre("history", "--type", "base", "-o", "json").json]
    assert types == ["base.added", "base.removed"]
    assert world.byre("replay", "--verify").code == 0


def test_a_base_that_is_not_what_was_added_gives_exit_code_1(world: World) -> None:
    world.byre("base", "add", BASE, "--name", "debian")
    good = world.byre("base", "verify", "-o", "json")
    assert (good.code, good.json[0]["condition"]) == (0, "intact")
    assert good.json[0]["verified_at"] is not None
    world.kernel.write(BASE, 0, b"else")
    bad = world.byre("base", "verify", "debian")
    assert (bad.code, "base:debian: changed: it was" in bad.err) == (1, True)


def test_what_is_no_base_and_no_name_is_refused(world: World) -> None:
    world.kernel.make_file(Path("/srv/Ümlaut.img"), MIB)
    assert world.byre("base", "verify", "nothing").code == 3
    named = world.byre("base", "add", "/srv/Ümlaut.img")
    assert (named.code, "say --name" in named.err) == (2, True)
    assert world.byre("base", "add", "/srv/none.img").code == 2
    assert world.byre("create", "sb-1", "--base", "base:none").code == 2


def test_a_time_is_given_shown_extended_and_taken_away(world: World) -> None:
    world.create("sb-1", "--ttl", "2h", "--on-expiry", "remove", "--idle-pause", "1d")
    [disk] = world.byre("get", "-o", "json").json
    lifetime = disk["lifetime"]
    assert (lifetime["ttl_s"], lifetime["on_expiry"]) == (7200, "remove")
    assert (lifetime["idle_pause_s"], lifetime["lapsed"]) == (86_400, None)
    explained = world.byre("explain", "sb-1", "-o", "json").json["lifetime"]
    assert explained["expires_at"] == lifetime["expires_at"]
    assert explained["idle_at"] is not None
    world.byre("extend", "sb-1", "--expires-at", "2100-01-01T00:00:00+01:00")
    [disk] = world.byre("get", "-o", "json").json
    assert disk["lifetime"]["expires_at"] == "2099-12-31T23:00:00.000000000Z"
    assert "2099-12-31" in world.byre("get", "-o", "wide").err.replace("2100-01-01", "2099-12-31")
    extended = world.byre("extend", "sb-1", "--forever", "-o", "json")
    assert (extended.json[0]["changed"], extended.json[0]["lifetime"]["expires_at"]) == (True, None)
    for wrong in ([], ["--ttl", "1h", "--forever"], ["--ttl", "soon"]):
        assert world.byre("extend", "sb-1", *wrong).code == 2
    assert world.byre("extend", "sb-2", "--ttl", "1h").code == 3

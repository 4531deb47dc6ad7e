"""`byre timeline`: spans, marks, and the pictures of them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from statemachine import lives as lives_module
from statemachine.lives import Life, Span, cells
from tests.unit.cliworld import World

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def world(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> World:
    made = World(folder, monkeypatch, capsys)
    made.create("sb-1")
    made.kernel.remove_dm_by_hand("byre-sb-1")
    made.byre("run", "--once")
    with made.kernel.open("/dev/mapper/byre-sb-1"):
        made.byre("pause", "sb-1", "--wait", "--timeout", "0.2")
    made.byre("pause", "sb-1", "--wait")
    made.byre("remove", "sb-1", "--wait")
    made.create("sb-1")
    return made


def test_the_spans_are_the_states_one_after_the_other(world: World) -> None:
    told = world.byre("timeline", "sb-1", "-o", "json").json
    first, second = told["generations"]
    assert [each["state"] for each in first["states"]] == [
        "absent", "attached", "snapshotted", "paused", "restored", "paused"
    ]  # fmt: skip
    assert [each["state"] for each in second["states"]] == ["absent", "attached", "snapshotted"]
    for before, after in zip(first["states"], first["states"][1:], strict=False):
        assert before["end"] == after["begin"]
    lines = world.byre("history", "sb-1", "-o", "jsonl").lines
    assert (lines[0]["at"], first["states"][0]["begin"]) == (first["begin"], lines[0]["at"])
    marked = {"transition.failed": "failure", "drift.detected": "drift"}
    wanted = [(line["seq"], marked[line["type"]]) for line in lines if line["type"] in marked]
    assert wanted == [(mark["seq"], mark["kind"]) for mark in first["marks"]]
    assert {"failure", "drift"} == {kind for _, kind in wanted}


def test_the_bars_can_be_read_without_colours(world: World) -> None:
    answer = world.byre("timeline", "sb-1")
    assert (answer.code, answer.out, "\x1b" in answer.err) == (0, "", False)
    assert "2 generations" in answer.err
    legend = answer.err.replace("\N{NO-BREAK SPACE}", " ")
    for character, state in (("█", "snapshotted"), ("▒", "paused"), ("▓", "restored")):
        assert f"{character} {state} " in legend
    assert "! 1 drift" in legend
    assert "in use by" in answer.err
    one = world.byre("timeline", "sb-1", "--generation", "2").err
    assert ("restored" in one, "generations" in one) == (False, False)


def test_the_drawing_is_well_formed_named_and_needs_nothing_else(world: World) -> None:
    path = world.folder / "sb-1.svg"
    answer = world.byre("timeline", "sb-1", "--svg", path)
    assert (answer.code, answer.out) == (0, "")
    root = ElementTree.parse(path).getroot()  # noqa: S314 - our own file
    assert root.get("role") == "img"
    named = {each.get("id"): each.text for each in root if each.get("id")}
    assert set((root.get("aria-labelledby") or "").split()) == set(named)
    assert "Generation 1: absent, then attached" in str(named["desc"])
    titles = [title.text or "" for rect in root.iter(f"{SVG}path") for title in rect if title.text]
    assert any("in use by" in title for title in titles)
    assert "href" not in path.read_text()
    refused = world.byre("timeline", "sb-1", "--svg", world.folder / "no" / "t.svg")
    assert (refused.code, "no/t.svg" in refused.err) == (1, True)


def test_what_is_not_there_or_too_much_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.byre("timeline", "nobody").code == 3
    missing = world.byre("timeline", "sb-1", "--generation", "7")
    assert (missing.code, "no generation 7" in missing.err) == (2, True)
    monkeypatch.setattr(lives_module, "PARTS_MAX", 5)
    refused = world.byre("timeline", "sb-1")
    assert (refused.code, "--generation" in refused.err) == (2, True)


def test_a_cell_shows_what_fills_most_of_it() -> None:
    spans = (
        Span(state="absent", begin=0, end=10),
        Span(state="attached", begin=10, end=10),
        Span(state="snapshotted", begin=10, end=34),
        Span(state="paused", begin=34, end=60),
    )
    life = Life(generation=1, spans=spans, marks=())
    whole = ["absent", "snapshotted", "snapshotted", "paused", "paused", "paused"]
    assert whole == cells(life, begin=0, end=60, count=6)
    assert cells(life, begin=0, end=120, count=4) == ["snapshotted", "paused", "", ""]

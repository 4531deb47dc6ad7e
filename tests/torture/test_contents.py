"""A lost, stale or foreign byte is seen; what a crash may leave is not taken for a loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.contents import BLOCK, Contents, DataLost, pattern, stamped
from tests.torture.ledger import Ledger, take_back

BASE = pattern("base", 4)


def disk(**blocks: bytes) -> bytes:
    """Return a disk on BASE with some blocks written: b1=..."""
    data = bytearray(BASE)
    for name, block in blocks.items():
        at = int(name.removeprefix("b")) * BLOCK
        data[at : at + BLOCK] = block
    return bytes(data)


@pytest.fixture
def contents() -> Contents:
    """A disk whose block 1 was flushed as 7, and whose blocks 1 and 2 are being written."""
    made = Contents("sb-1", 2, BASE)
    made.begin([1], 7)
    made.flush()
    made.begin([1, 2], 8)
    made.begin([2], 9)
    return made


def of(block: int, stamp: int, *, name: str = "sb-1", generation: int = 2) -> bytes:
    return stamped(name, generation, block, stamp)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"b1": of(1, 7)}, {1: 7}),
        ({"b1": of(1, 8)}, {1: 8}),
        ({"b1": of(1, 7), "b2": of(2, 8)}, {1: 7, 2: 8}),
        ({"b1": of(1, 7), "b2": of(2, 9)}, {1: 7, 2: 9}),
    ],
)
def test_what_was_flushed_or_was_begun_since_may_be_there(
    contents: Contents, found: dict[str, bytes], expected: dict[int, int]
) -> None:
    assert expected == contents.check(disk(**found))


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"b1": of(1, 6)},
        {"b1": of(1, 7), "b2": of(2, 7)},
        {"b1": of(1, 7), "b3": of(3, 8)},
        {"b1": of(1, 7, generation=1)},
        {"b1": of(1, 7, name="sb-2")},
        {"b1": of(2, 7)},
        {"b1": of(1, 7)[:-1] + b"x"},
        {"b0": bytes(BLOCK), "b1": of(1, 7)},
    ],
    ids=["lost", "stale", "never", "elsewhere", "older", "foreign", "moved", "one-byte", "zeros"],
)
def test_anything_else_is_a_loss_and_names_the_block(
    contents: Contents, found: dict[str, bytes]
) -> None:
    with pytest.raises(DataLost, match=r"sb-1 generation 2: block \d should hold"):
        contents.check(disk(**found))


def test_a_disk_of_another_size_is_a_loss(contents: Contents) -> None:
    with pytest.raises(DataLost, match="bytes, not"):
        contents.check(BASE[:-BLOCK])


def test_after_a_flush_the_last_write_must_be_there(contents: Contents) -> None:
    contents.flush()
    assert contents.check(disk(b1=of(1, 8), b2=of(2, 9))) == {1: 8, 2: 9}
    with pytest.raises(DataLost, match="stamp 9"):
        contents.check(disk(b1=of(1, 8), b2=of(2, 8)))


def test_what_a_check_has_found_must_be_there_from_then_on(contents: Contents) -> None:
    contents.settle(contents.check(disk(b1=of(1, 8))))
    with pytest.raises(DataLost, match="stamp 8"):
        contents.check(disk(b1=of(1, 7)))
    with pytest.raises(DataLost, match="the base's block"):
        contents.check(disk(b1=of(1, 8), b2=of(2, 8)))


# --- the ledger ----------------------------------------------------------------------------------


def ledger_of(path: Path) -> Ledger:
    return Ledger.read(path, {"base": BASE})


def test_a_ledger_knows_after_a_cut_what_it_knew_before(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    before = ledger_of(path)
    contents = before.contents("sb-1", 2, "base")
    before.boot("first")
    before.ask("sb-1", "live")
    before.acknowledge("sb-1", "live", 5, "abc")
    before.ask("sb-1", "paused")
    assert before.begin(contents, "base", [1, 3]) == 1
    before.flushed(contents, "base")
    assert before.begin(contents, "base", [1]) == 2
    after = ledger_of(path)
    assert (
        after.boots,
        after.told,
        after.wanted,
        after.stamp,
        after.writes,
    ) == (["first"], [(5, "abc")], {"sb-1": ("live", "paused")}, 2, 3)
    kept = after.contents("sb-1", 2, "base")
    assert kept.check(disk(b1=of(1, 2), b3=of(3, 1))) == {1: 2, 3: 1}
    after.found(kept, "base", {1: 2, 3: 1})
    with pytest.raises(DataLost):
        ledger_of(path).contents("sb-1", 2, "base").check(disk(b1=of(1, 1), b3=of(3, 1)))


def test_a_line_that_a_cut_broke_off_was_never_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger_of(path).boot("first")
    with path.open("a") as file:
        file.write('{"kind": "boot", "boot_i')
    cut = ledger_of(path)
    cut.boot("second")
    assert ledger_of(path).boots == ["first", "second"]


def test_answers_that_came_too_late_are_taken_back_and_questions_are_not(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    before = ledger_of(path)
    contents = before.contents("sb-1", 2, "base")
    before.begin(contents, "base", [1])
    before.flushed(contents, "base")
    before.acknowledge("sb-1", "live", 5, "abc")
    size = path.stat().st_size
    before.begin(contents, "base", [1])
    before.flushed(contents, "base")
    before.ask("sb-1", "paused")
    before.acknowledge("sb-1", "paused", 6, "def")
    take_back(path, after=size)
    after = ledger_of(path)
    assert (after.told, after.wanted) == ([(5, "abc")], {"sb-1": ("live", "paused")})
    kept = after.contents("sb-1", 2, "base")
    assert kept.check(disk(b1=of(1, 1))) == {1: 1}
    assert kept.check(disk(b1=of(1, 2))) == {1: 2}


def test_a_disk_that_was_asked_for_and_not_acknowledged_may_not_exist(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path / "ledger")
    ledger.ask("sb-1", "live")
    assert ledger.wanted == {"sb-1": ("", "live")}

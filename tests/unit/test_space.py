"""Watermarks: how they are written, and what they mean on a file system of any size."""

from __future__ import annotations

import pytest

from reconciler.config import Settings
from reconciler.space import CRITICAL, LOW, Space, SpaceLevel, Watermark, Watermarks
from statemachine.errors import UsageError
from statemachine.units import Bytes

MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("text", "total", "amount"),
    [("10%", 100 * GIB, 10 * GIB), ("8GiB", 100 * GIB, 8 * GIB), ("8GiB", 4 * GIB, 4 * GIB),
     ("10%,8GiB", 20 * GIB, 2 * GIB), ("10%,8GiB", 800 * GIB, 8 * GIB), ("0%", GIB, 0),
     ("8GiB, 10%", 20 * GIB, 2 * GIB), ("2.5%", 1000, 25), ("100%", GIB, GIB)],
)  # fmt: skip
def test_a_watermark_is_a_share_a_size_or_the_smaller(text: str, total: int, amount: int) -> None:
    assert Watermark.parse(text).of(Bytes(total)) == Bytes(amount)


@pytest.mark.parametrize("text", ["", "10", "%", "101%", "10%,20%", "1GiB,2GiB", "ten", "-5%", ","])
def test_what_is_no_watermark_is_refused_by_name(text: str) -> None:
    if text == "10":  # ten bytes: a size, if a strange one
        assert Watermark.parse(text).of(Bytes(GIB)) == Bytes(10)
        return
    with pytest.raises(UsageError, match="watermark"):
        Settings(low_space=text)


@pytest.mark.parametrize(
    ("total", "low", "critical"),
    [(64 * MIB, 64 * MIB * 2 // 5, 16 * MIB), (2 * GIB, 2 * GIB // 10, 2 * GIB // 20),
     (10 * 1024 * GIB, 2 * GIB, GIB)],
)  # fmt: skip
def test_the_defaults_fit_small_and_large_file_systems(total: int, low: int, critical: int) -> None:
    assert LOW.of(Bytes(total)).count == pytest.approx(low, abs=1)
    assert CRITICAL.of(Bytes(total)).count == pytest.approx(critical, abs=1)


@pytest.mark.parametrize(
    ("available", "level"),
    [(100, SpaceLevel.PLENTY), (20, SpaceLevel.PLENTY), (19, SpaceLevel.LOW),
     (10, SpaceLevel.LOW), (9, SpaceLevel.CRITICAL), (0, SpaceLevel.CRITICAL)],
)  # fmt: skip
def test_the_level_changes_under_each_watermark(available: int, level: SpaceLevel) -> None:
    marks = Watermarks(low=Watermark.parse("20%"), critical=Watermark.parse("10%"))
    space = marks.judge(available=Bytes(available), total=Bytes(100))
    assert space.level is level
    assert space.thaw == Bytes(15)


def test_a_low_watermark_under_the_critical_one_still_thaws() -> None:
    marks = Watermarks(low=Watermark.parse("5%"), critical=Watermark.parse("10%"))
    assert marks.judge(available=Bytes(9), total=Bytes(100)).level is SpaceLevel.CRITICAL
    assert marks.judge(available=Bytes(10), total=Bytes(100)).thaw == Bytes(10)


def test_the_numbers_are_in_its_words() -> None:
    space = Space(
        available=Bytes(MIB), total=Bytes(64 * MIB), low=Bytes(8 * MIB), critical=Bytes(2 * MIB)
    )
    assert str(space) == (
        "1.0 MiB of 64.0 MiB are free; low is under 8.0 MiB, critical under 2.0 MiB"
    )

"""Sizes at their border; the CoW file's size is in test_cow_room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine.units import LARGEST_BYTES, Bytes, Sectors, UnitError

BORDER_BYTES = 2**63 - 512
BORDER_SECTORS = 2**54 - 1

sectors_upto_border = st.integers(0, BORDER_SECTORS) | st.integers(
    BORDER_SECTORS - 10_000, BORDER_SECTORS
)


# --- the border -----------------------------------------------------------------------------------


def test_the_border_is_what_loff_t_and_sectors_both_can_say() -> None:
    assert BORDER_BYTES == LARGEST_BYTES
    assert Sectors(BORDER_SECTORS) == Bytes(BORDER_BYTES).sectors_exact()
    assert Bytes(BORDER_BYTES) == Sectors(BORDER_SECTORS).to_bytes()


@pytest.mark.parametrize(
    ("unit", "count"),
    [
        (Bytes, BORDER_BYTES + 1),
        (Bytes, 2**63),
        (Bytes, 2**64),
        (Bytes, -1),
        (Sectors, BORDER_SECTORS + 1),
        (Sectors, -1),
        (Bytes, True),
        (Bytes, 1.0),
        (Bytes, "1"),
        (Bytes, None),
    ],
)
def test_what_is_outside_of_the_type_is_refused(unit: type[Bytes], count: int) -> None:
    with pytest.raises(UnitError):
        unit(count)


def test_the_last_ones_inside_are_taken() -> None:
    found = (int(Bytes(BORDER_BYTES)), int(Sectors(BORDER_SECTORS)))
    assert found == (BORDER_BYTES, BORDER_SECTORS)


def test_arithmetic_past_the_border_is_refused() -> None:
    with pytest.raises(UnitError):
        Bytes(BORDER_BYTES) + Bytes(1)
    with pytest.raises(UnitError):
        Sectors(0) - Sectors(1)
    with pytest.raises(UnitError):
        Bytes(BORDER_BYTES).rounded_up(Bytes(4096))


def test_units_do_not_mix() -> None:
    with pytest.raises(UnitError, match="cannot mix Bytes with Sectors"):
        Bytes(1) + Sectors(1)  # type: ignore[operator]
    assert Bytes(8) != Sectors(8)  # type: ignore[comparison-overlap]
    with pytest.raises(TypeError):
        assert Bytes(1) < Sectors(2)  # type: ignore[operator]


@pytest.mark.parametrize("count", [1, 511, 513, BORDER_BYTES - 1])
def test_what_is_no_multiple_of_a_sector_does_not_divide(count: int) -> None:
    with pytest.raises(UnitError, match="not a multiple of 512"):
        Bytes(count).sectors_exact()


@given(sectors_upto_border)
def test_sectors_and_bytes_convert_both_ways(count: int) -> None:
    assert Sectors(count) == Sectors(count).to_bytes().sectors_exact()


@given(st.integers(0, BORDER_BYTES - 2**20), st.sampled_from([4096, 16384, 2**19]))
def test_a_size_that_is_rounded_up_is_whole_and_less_than_a_piece_more(
    count: int, piece: int
) -> None:
    rounded = int(Bytes(count).rounded_up(Bytes(piece)))
    assert (rounded % piece, 0 <= rounded - count < piece) == (0, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("4096", 4096), ("64M", 64 * 2**20), ("10GiB", 10 * 2**30), (" 1 k ", 1024),
     ("2tb", 2 * 2**40), (str(BORDER_BYTES), BORDER_BYTES)],
)  # fmt: skip
def test_sizes_are_read(text: str, expected: int) -> None:
    assert expected == int(Bytes.parse(text))


@pytest.mark.parametrize(
    "text",
    ["", "M", "-1", "1.5G", "1e3", "9223372036854775807", "9999999P", "1 Mi", "1\n2", "٣", "0x10"],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UnitError):
        Bytes.parse(text)


@given(st.integers(0, BORDER_BYTES))
def test_a_size_prints_with_one_suffix(count: int) -> None:
    number, suffix = str(Bytes(count)).split(" ")
    assert (0 <= float(number) <= 8192, True) == (True, suffix in "B KiB MiB GiB TiB PiB")

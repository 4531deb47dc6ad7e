"""Sizes at their border, and the CoW file's size against a model of the exception store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.drivers.cow_room import cow_size
from statemachine.units import LARGEST_BYTES, Bytes, Chunks, Sectors, UnitError

BORDER_BYTES = 2**63 - 512
BORDER_SECTORS = 2**54 - 1
CHUNK_BYTES = 4096
AREA = 256  # exceptions of 16 bytes in one metadata chunk

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
        (Chunks, 2**51),
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
    assert (
        int(Bytes(BORDER_BYTES)),
        int(Sectors(BORDER_SECTORS)),
        int(Chunks(2**51 - 1)),
    ) == (BORDER_BYTES, BORDER_SECTORS, 2**51 - 1)


def test_arithmetic_past_the_border_is_refused() -> None:
    with pytest.raises(UnitError):
        Bytes(BORDER_BYTES) + Bytes(1)
    with pytest.raises(UnitError):
        Sectors(0) - Sectors(1)
    with pytest.raises(UnitError):
        Sectors(BORDER_SECTORS).chunks_ceil().to_sectors()


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


@given(st.integers(0, BORDER_SECTORS // 8 * 8))
def test_chunks_hold_all_sectors_and_less_than_one_chunk_more(count: int) -> None:
    chunks = int(Sectors(count).chunks_ceil())
    assert 0 <= chunks * 8 - count < 8


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


# --- the CoW file ---------------------------------------------------------------------------------


def chunks_touched(exceptions: int) -> int:
    """Walk through the store as dm-snap-persistent.c does; returns how many chunks it needs.

    persistent_prepare_exception takes the next free chunk and skips metadata chunks;
    persistent_commit_exception clears the next area's metadata chunk when an area is full.
    """
    next_free, highest = 2, 1  # the header, the metadata chunk of area 0
    for committed in range(1, exceptions + 1):
        highest = max(highest, next_free)
        next_free += 1
        if next_free % (AREA + 1) == 1:
            next_free += 1
        if committed % AREA == 0:
            highest = max(highest, 1 + (AREA + 1) * (committed // AREA))
    return highest + 1


def chunks_needed(exceptions: int) -> int:
    """Return the same by arithmetic, for sizes that cannot be walked through."""
    if exceptions == 0:
        return 2
    last = exceptions - 1
    data = 1 + (AREA + 1) * (last // AREA) + 1 + last % AREA
    cleared = 1 + (AREA + 1) * (exceptions // AREA)
    return max(data, cleared) + 1


def exceptions_of(base_bytes: int) -> int:
    return -(-base_bytes // CHUNK_BYTES)


@pytest.mark.parametrize("exceptions", [*range(5), *range(250, 262), *range(508, 520), 66_000])
def test_the_model_by_arithmetic_is_the_model_by_walking(exceptions: int) -> None:
    assert chunks_touched(exceptions) == chunks_needed(exceptions)


@pytest.mark.parametrize("exceptions", [*range(1, 1100), 65_535, 65_536, 65_537])
def test_a_full_rewrite_fits_into_the_cow_file(exceptions: int) -> None:
    size = int(cow_size(Bytes(exceptions * CHUNK_BYTES)))
    assert size >= chunks_needed(exceptions) * CHUNK_BYTES


@given(st.integers(1, BORDER_SECTORS // 257 * 256 - 1024) | st.integers(1, 10**7))
def test_a_full_rewrite_fits_whatever_the_base(sectors: int) -> None:
    base = Sectors(sectors).to_bytes()
    needed = chunks_needed(exceptions_of(int(base))) * CHUNK_BYTES
    assert needed <= int(cow_size(base)) <= needed + 2 * CHUNK_BYTES


@given(st.integers(BORDER_SECTORS // 257 * 256 + 4096, BORDER_SECTORS))
def test_a_base_whose_cow_file_no_file_system_can_hold_is_refused(sectors: int) -> None:
    with pytest.raises(UnitError):
        cow_size(Sectors(sectors).to_bytes())


@pytest.mark.parametrize("size", [1, 511, 4095, 4097])
def test_a_base_of_part_sectors_has_no_cow_size(size: int) -> None:
    with pytest.raises(UnitError):
        cow_size(Bytes(size))


def test_the_size_of_the_measured_disk_is_enough() -> None:
    # kernel fact 1: 64 MiB needed 131600 sectors.
    assert int(cow_size(Bytes(64 * 2**20))) // 512 >= 131_600

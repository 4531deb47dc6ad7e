"""How large a CoW file is, against a model of the exception store, for every size of a chunk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.drivers.cow_room import cow_size
from statemachine.units import CHUNK_SIZES, Bytes, Sectors, UnitError

BORDER_SECTORS = 2**54 - 1
EXCEPTION_BYTES = 16
chunk_sizes = st.sampled_from(CHUNK_SIZES)


def chunks_touched(exceptions: int, area: int) -> int:
    """Walk through the store as dm-snap-persistent.c does; returns how many chunks it needs.

    persistent_prepare_exception takes the next free chunk and skips metadata chunks;
    persistent_commit_exception clears the next area's metadata chunk when an area is full.
    """
    next_free, highest = 2, 1  # the header, the metadata chunk of area 0
    for committed in range(1, exceptions + 1):
        highest = max(highest, next_free)
        next_free += 1
        if next_free % (area + 1) == 1:
            next_free += 1
        if committed % area == 0:
            highest = max(highest, 1 + (area + 1) * (committed // area))
    return highest + 1


def chunks_needed(exceptions: int, area: int) -> int:
    """Return the same by arithmetic, for sizes that cannot be walked through."""
    if exceptions == 0:
        return 2
    last = exceptions - 1
    data = 1 + (area + 1) * (last // area) + 1 + last % area
    cleared = 1 + (area + 1) * (exceptions // area)
    return max(data, cleared) + 1


@pytest.mark.parametrize("area", [256, 1024])
@pytest.mark.parametrize("exceptions", [*range(5), *range(250, 262), *range(1020, 1030), 66_000])
def test_the_model_by_arithmetic_is_the_model_by_walking(exceptions: int, area: int) -> None:
    assert chunks_touched(exceptions, area) == chunks_needed(exceptions, area)


@given(st.integers(1, BORDER_SECTORS // 258 * 256 - 2**13) | st.integers(1, 10**7), chunk_sizes)
def test_a_full_rewrite_fits_whatever_the_base_and_the_chunk(sectors: int, chunk: int) -> None:
    base = Sectors(sectors).to_bytes()
    needed = chunks_needed(-(-int(base) // chunk), chunk // EXCEPTION_BYTES) * chunk
    size = int(cow_size(base, Bytes(chunk)))
    assert needed <= size <= needed + 2 * chunk
    assert size % chunk == 0


@pytest.mark.parametrize("exceptions", [*range(1, 1100), 65_535, 65_536, 65_537])
def test_a_full_rewrite_fits_at_every_border_of_an_area(exceptions: int) -> None:
    for chunk in CHUNK_SIZES:
        needed = chunks_needed(exceptions, chunk // EXCEPTION_BYTES)
        assert int(cow_size(Bytes(exceptions * chunk), Bytes(chunk))) >= needed * chunk


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

"""The text of the snapshot target: what byre prints is what it reads, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.kernel.table import (
    TableError,
    format_status,
    format_table,
    parse_status,
    parse_table,
)
from statemachine.observed import DeviceNumber, SnapshotHealth, SnapshotStatus, SnapshotTable
from statemachine.units import Sectors

LENGTH = Sectors(131072)
numbers = st.builds(DeviceNumber, st.integers(0, 4095), st.integers(0, 2**20 - 1))
sectors = st.builds(Sectors, st.integers(0, 2**54 - 1))
chunks = st.integers(0, 20).map(lambda power: Sectors(2**power))


@given(
    origin=numbers,
    cow=numbers,
    length=sectors,
    chunk=chunks,
    store=st.sampled_from(["P", "PO", "N"]),
    discards=st.booleans(),
)
def test_a_table_survives_the_round_trip(
    origin: DeviceNumber,
    cow: DeviceNumber,
    length: Sectors,
    chunk: Sectors,
    store: str,
    *,
    discards: bool,
) -> None:
    table = SnapshotTable(
        length=length, origin=origin, cow=cow, chunk=chunk, persistent=store, discards=discards
    )
    assert parse_table(length, format_table(table)) == table


@given(used=sectors, total=sectors, metadata=sectors)
def test_a_status_survives_the_round_trip(used: Sectors, total: Sectors, metadata: Sectors) -> None:
    status = SnapshotStatus(health=SnapshotHealth.VALID, used=used, total=total, metadata=metadata)
    assert parse_status(format_status(status)) == status


@given(st.text())
def test_no_text_makes_a_parser_fail_in_another_way(text: str) -> None:
    for parse in (parse_status, lambda line: parse_table(LENGTH, line)):
        try:
            parse(text)
        except TableError as error:
            assert repr(text) in str(error)  # noqa: PT017 - most texts raise, some parse


def test_the_table_that_byre_loads() -> None:
    table = SnapshotTable(length=LENGTH, origin=DeviceNumber(7, 0), cow=DeviceNumber(7, 1))
    assert format_table(table) == "7:0 7:1 P 8"


def test_the_status_of_a_fresh_snapshot() -> None:
    expected = SnapshotStatus(
        health=SnapshotHealth.VALID, used=Sectors(16), total=Sectors(131600), metadata=Sectors(16)
    )
    assert parse_status("16/131600 16") == expected


@pytest.mark.parametrize(
    ("word", "health"),
    [
        ("Invalid", SnapshotHealth.INVALID),
        ("Overflow", SnapshotHealth.OVERFLOW),
        ("Merge failed", SnapshotHealth.MERGE_FAILED),
        ("Unknown", SnapshotHealth.UNKNOWN),
    ],
)
def test_a_word_of_ill_health_is_read_and_printed(word: str, health: SnapshotHealth) -> None:
    assert parse_status(word) == SnapshotStatus(health=health)
    assert format_status(SnapshotStatus(health=health)) == word


def test_a_full_store_may_report_a_chunk_more_than_there_is() -> None:
    assert parse_status("131608/131600 520").used == Sectors(131608)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "invalid",
        "Merge",
        "16/131600",
        "16 131600 16",
        "16/131600 16 16",
        "-16/131600 16",
        "16/131600 1e1",
        "١٦/131600 16",
        f"{2**64 - 1}/{2**64 - 1} 0",
    ],
)
def test_a_malformed_status_is_refused(line: str) -> None:
    with pytest.raises(TableError, match="is not a snapshot status"):
        parse_status(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "7:0 7:1 P",
        "7:0 7:1 X 8",
        "7:0 7:1 P 8 1 discard_passdown_origin",
        "/dev/loop0 7:1 P 8",
        "7:0 7:1 P -8",
        "7: 7:1 P 8",
    ],
)
def test_a_malformed_table_is_refused(line: str) -> None:
    with pytest.raises(TableError, match="is not the table of a plain snapshot"):
        parse_table(LENGTH, line)


@pytest.mark.parametrize(
    ("store", "chunk", "reason"),
    [("Q", 8, "none of N, P, PO"), ("P", 0, "power of two"), ("P", 12, "power of two")],
)
def test_a_table_the_kernel_would_refuse_is_not_printed(
    store: str, chunk: int, reason: str
) -> None:
    table = SnapshotTable(
        length=LENGTH,
        origin=DeviceNumber(7, 0),
        cow=DeviceNumber(7, 1),
        persistent=store,
        chunk=Sectors(chunk),
    )
    with pytest.raises(TableError, match=reason):
        format_table(table)

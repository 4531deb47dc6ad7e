"""The exception store, read from its file: what is sound comes out, what is not is a finding."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from reconciler.store import files, layout, reader
from reconciler.store.finding import FindingKind, StoreDamaged
from reconciler.store.layout import Header, StoreError, pack_header, parse_header
from reconciler.store.seen import Seen
from statemachine.observed import SnapshotHealth, SnapshotStatus
from statemachine.units import Bytes, Sectors
from tests.unit.cowfiles import HEADER, SMALL, cow_file, data_chunks, written

CHUNK = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cow"


def kinds(path: Path, raw: bytes, *, disk: int | None = None) -> list[tuple[str, int]]:
    """Return what a check finds in a file, as (kind, offset)."""
    path.write_bytes(raw)
    report = files.check(path, disk=None if disk is None else Bytes(disk))
    assert report.sound is (report.findings == ())
    return [(finding.kind.value, finding.offset) for finding in report.findings]


def valid(used: int, total: int, metadata: int) -> SnapshotStatus:
    """Return a status whose numbers are given in chunks of 8 sectors."""
    return SnapshotStatus(
        health=SnapshotHealth.VALID,
        used=Sectors(used * 8),
        total=Sectors(total * 8),
        metadata=Sectors(metadata * 8),
    )


class TestHeader:
    @pytest.mark.parametrize("header", [HEADER, SMALL, Header(valid=False, chunk=Sectors(2**21))])
    def test_it_survives_the_round_trip(self, header: Header) -> None:
        assert parse_header(pack_header(header) + b"what stands behind it") == header

    @pytest.mark.parametrize("raw", [b"", bytes(3), bytes(16), bytes(16) + b"data"])
    def test_nothing_written_yet(self, raw: bytes) -> None:
        assert parse_header(raw) is None

    @pytest.mark.parametrize(
        ("raw", "found"),
        [
            (b"SnAp", "4 bytes, which cannot hold the header of 16"),
            (b"pAnS" + bytes(12), "magic number 0x536e4170; allowed: 0x70416e53"),
            (struct.pack("<4I", 0, 1, 1, 8), "magic number 0x00000000"),
            (struct.pack("<4I", layout.MAGIC, 1, 2, 8), "version 2; allowed: 1"),
            (struct.pack("<4I", layout.MAGIC, 2, 1, 8), "2 as its mark of validity"),
            (struct.pack("<4I", layout.MAGIC, 1, 1, 0), "chunks of 0 sectors"),
            (struct.pack("<4I", layout.MAGIC, 1, 1, 12), "chunks of 12 sectors; allowed: a power"),
            (struct.pack("<4I", layout.MAGIC, 1, 1, 2**22), "chunks of 4194304 sectors"),
        ],
    )
    def test_something_else_is_refused_with_what_was_found(self, raw: bytes, found: str) -> None:
        with pytest.raises(StoreError, match=found) as raised:
            parse_header(raw)
        assert raised.value.kind == "cow-foreign"

    def test_where_the_areas_are(self) -> None:
        assert [HEADER.area_chunk(area) for area in range(4)] == [1, 258, 515, 772]
        metadata = [chunk for chunk in range(1000) if HEADER.is_metadata(chunk)]
        assert metadata == [0, 1, 258, 515, 772]
        assert SMALL.pairs_per_area == 32


class TestUsage:
    @pytest.mark.parametrize(
        ("count", "used", "metadata"),
        [
            (0, 2, 2),
            (1, 3, 2),
            (2, 4, 2),
            (255, 257, 2),
            (256, 259, 3),
            (257, 260, 3),
            (511, 514, 3),
            (512, 516, 4),
            (513, 517, 4),
        ],
    )
    def test_the_kernel_s_own_numbers(
        self, path: Path, count: int, used: int, metadata: int
    ) -> None:
        """They were measured on a real device-mapper: tests/contract/test_store.py."""
        path.write_bytes(written(HEADER, count, chunks=1024))
        assert files.usage(path) == valid(used, 1024, metadata)
        report = files.check(path)
        assert (report.exceptions, report.sound) == (count, True)
        assert report.status == valid(used, 1024, metadata)

    def test_a_disk_that_was_never_written(self, path: Path) -> None:
        path.write_bytes(b"")
        os.truncate(path, 64 * CHUNK)
        assert files.usage(path) == valid(2, 64, 2)
        report = files.check(path)
        assert (report.header, report.exceptions, report.sound) == (None, 0, True)

    def test_a_hole_that_a_crash_left_counts_as_used(self, path: Path) -> None:
        path.write_bytes(cow_file(HEADER, [(7, 9)], chunks=64))
        assert files.usage(path) == valid(10, 64, 2)

    def test_an_invalid_store_has_no_numbers_but_its_exceptions(self, path: Path) -> None:
        raw = written(Header(valid=False, chunk=Sectors(8)), 3)
        assert kinds(path, raw) == [("invalid", 4)]
        expected = SnapshotStatus(health=SnapshotHealth.INVALID)
        assert files.usage(path) == expected
        report = files.check(path)
        assert (report.exceptions, report.status) == (3, expected)

    def test_part_of_a_chunk_at_the_end_of_the_file_counts_by_sectors(self, path: Path) -> None:
        path.write_bytes(written(HEADER, 1, chunks=5) + bytes(3 * 512 + 100))
        assert files.usage(path).total == Sectors(5 * 8 + 3)

    @pytest.mark.parametrize("count", [32, 33, 64, 100])
    def test_another_size_of_chunks(self, path: Path, count: int) -> None:
        path.write_bytes(written(SMALL, count))
        last = data_chunks(SMALL, count)[-1]
        skipped = 1 if count % 32 == 0 else 0
        assert files.usage(path).used == Sectors(last + 1 + skipped)
        assert files.check(path).exceptions == count


class TestExceptions:
    def test_they_come_in_the_order_of_their_commits_with_their_offsets(self, path: Path) -> None:
        pairs = [(900, 3), (1, 2), (2**40, 4)]
        path.write_bytes(cow_file(HEADER, pairs))
        with files.opened(path) as descriptor:
            header, size = reader.read_header(descriptor), reader.file_size(descriptor)
            assert header == HEADER
            found = list(reader.exceptions(descriptor, header, size=size))
        assert [(each.old, each.new) for each in found] == pairs
        assert [each.offset for each in found] == [CHUNK, CHUNK + 16, CHUNK + 32]

    def test_a_damaged_store_is_an_error_at_its_first_bad_number(self, path: Path) -> None:
        path.write_bytes(cow_file(HEADER, [(0, 2), (1, 2), (2, 3)]))
        with files.opened(path) as descriptor:
            size = reader.file_size(descriptor)
            found = reader.exceptions(descriptor, HEADER, size=size)
            assert next(found).old == 0
            with pytest.raises(StoreDamaged, match="new-twice at byte 4120: chunk 2") as raised:
                next(found)
        assert (raised.value.kind, raised.value.finding.offset) == ("cow-damaged", 4120)

    def test_a_metadata_chunk_larger_than_a_piece(self, path: Path) -> None:
        header = Header(valid=True, chunk=Sectors(256))
        path.write_bytes(written(header, 5000, chunks=2))
        os.truncate(path, 5002 * header.chunk_bytes)
        report = files.check(path)
        assert (report.exceptions, report.sound) == (5000, True)


class TestFindings:
    @pytest.mark.parametrize(
        ("pairs", "expected"),
        [
            ([(0, 2), (1, 64)], [("beyond-store", CHUNK + 24)]),
            ([(0, 2**64 - 1)], [("beyond-store", CHUNK + 8)]),
            ([(0, 1)], [("in-metadata", CHUNK + 8)]),
            ([(0, 2), (0, 3)], [("old-twice", CHUNK + 16)]),
            ([(0, 2), (1, 2)], [("new-twice", CHUNK + 24)]),
            ([(100, 2)], [("beyond-disk", CHUNK)]),
            ([(2**64 - 1, 1)], [("beyond-disk", CHUNK), ("in-metadata", CHUNK + 8)]),
        ],
    )
    def test_a_number_that_cannot_be(
        self, path: Path, pairs: list[tuple[int, int]], expected: list[tuple[str, int]]
    ) -> None:
        assert kinds(path, cow_file(HEADER, pairs, chunks=64), disk=100 * CHUNK) == expected

    def test_the_last_chunks_of_store_and_disk_are_sound(self, path: Path) -> None:
        assert kinds(path, cow_file(HEADER, [(100, 63)], chunks=64), disk=100 * CHUNK + 1) == []

    def test_a_later_metadata_chunk_is_no_data(self, path: Path) -> None:
        raw = cow_file(HEADER, [(0, 258)], chunks=300)
        assert kinds(path, raw) == [("in-metadata", CHUNK + 8)]

    def test_the_others_are_still_read(self, path: Path) -> None:
        path.write_bytes(cow_file(HEADER, [(0, 2), (0, 3), (1, 4)], chunks=64))
        assert files.check(path).exceptions == 2

    @pytest.mark.parametrize("chunks", [1, 2])
    def test_a_file_that_was_cut(self, path: Path, chunks: int) -> None:
        raw = written(HEADER, 3)[: chunks * CHUNK - 1]
        assert kinds(path, raw) == [("truncated", CHUNK)]
        assert files.check(path).status is None
        with pytest.raises(StoreDamaged, match="metadata chunk of area 0 ends at byte 8192"):
            files.usage(path)

    def test_a_full_area_without_a_next_one(self, path: Path) -> None:
        raw = written(HEADER, 256)[: 258 * CHUNK]
        assert kinds(path, raw) == [("truncated", 258 * CHUNK)]

    @pytest.mark.parametrize("at", [CHUNK + 16, CHUNK + 47, 2 * CHUNK - 1])
    def test_what_stands_behind_the_end(self, path: Path, at: int) -> None:
        raw = bytearray(written(HEADER, 1))
        raw[at] = 1
        # In the second number of the next pair it would be an exception.
        assert kinds(path, bytes(raw)) == [("after-end", at)]
        assert files.check(path).exceptions == 1

    def test_usage_beyond_the_file_names_the_exception(self, path: Path) -> None:
        path.write_bytes(cow_file(HEADER, [(0, 2), (1, 1000)], chunks=64))
        with pytest.raises(StoreDamaged) as raised:
            files.usage(path)
        finding = raised.value.finding
        assert (finding.kind, finding.offset) == (FindingKind.BEYOND_STORE, CHUNK + 24)
        assert "chunk 1000 of the store; allowed: below 64" in str(finding)

    def test_a_report_keeps_a_bounded_number_and_counts_all(self, path: Path) -> None:
        path.write_bytes(cow_file(HEADER, [(0, 2)] * 200, chunks=64))
        report = files.check(path)
        assert (len(report.findings), report.findings_total) == (files.FINDINGS_MAX, 398)


class TestFiles:
    def test_a_symlink_is_not_followed(self, path: Path, tmp_path: Path) -> None:
        path.write_bytes(written(HEADER, 1))
        (tmp_path / "link").symlink_to(path)
        with pytest.raises(OSError, match="symbolic links"):
            files.check(tmp_path / "link")

    def test_a_pipe_does_not_make_it_wait(self, path: Path) -> None:
        os.mkfifo(path)
        for ask in (files.check, files.usage):
            with pytest.raises(StoreError, match="no regular file"):
                ask(path)

    def test_a_file_that_is_missing(self, path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            files.usage(path)

    def test_a_planted_size_costs_nothing(self, path: Path) -> None:
        """A sparse file of terabytes, with chunks of 16 MiB."""
        path.write_bytes(pack_header(Header(valid=True, chunk=Sectors(2**15))))
        os.truncate(path, 2**41)
        assert files.usage(path).used == Sectors(2**16)
        assert files.check(path).sound

    def test_a_size_that_the_kernel_cannot_count_is_refused(self) -> None:
        descriptor = os.memfd_create("cow")
        try:
            os.truncate(descriptor, reader.SIZE_MAX.count + 1)
            with pytest.raises(StoreError, match="allowed: at most 4611686018427387904"):
                files.check_open(descriptor)
        finally:
            os.close(descriptor)


def test_a_set_of_numbers() -> None:
    seen = Seen()
    numbers = [0, 511, 512, 7, 2**64 - 1]
    assert [seen.add(number) for number in numbers] == [True] * 5
    assert [seen.add(number) for number in numbers] == [False] * 5
    assert seen.add(8)

"""What a power cut leaves of a disk: all that was flushed, and any part of what was not."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.torture import writelog
from tests.torture.writelog import DISCARD, FLUSH, MAGIC, SECTOR, BadLog, Cut

SECTORS = 16
Request = bytes


def write(sector: int, letter: str, count: int = 1) -> Request:
    head = struct.pack("<QQQQ", sector, count, 0, count * SECTOR).ljust(SECTOR, b"\0")
    return head + letter.encode() * (SECTOR * count)


def flush() -> Request:
    return struct.pack("<QQQQ", 0, 0, FLUSH, 0).ljust(SECTOR, b"\0")


def discard(sector: int, count: int) -> Request:
    return struct.pack("<QQQQ", sector, count, DISCARD, 0).ljust(SECTOR, b"\0")


HOLE = bytes(2 * SECTOR)
"""A write of one sector that the kill came before, though it had its place."""


@pytest.fixture
def cut(tmp_path: Path) -> Callable[..., tuple[Cut, str]]:
    """Replay requests to an empty disk; returns what was done, and the disk's first letters."""

    def replayed(*requests: Request, counted: int, keep: bool) -> tuple[Cut, str]:
        log, image = tmp_path / "log", tmp_path / "image"
        head = struct.pack("<QQQI", MAGIC, 1, counted, SECTOR).ljust(SECTOR, b"\0")
        log.write_bytes(head + b"".join(requests) + bytes(8 * SECTOR))
        image.write_bytes(b"." * (SECTORS * SECTOR))
        done = writelog.replay(log, image, lambda: keep)
        data = image.read_bytes()
        assert len(data) == SECTORS * SECTOR
        return done, "".join(chr(data[at]) for at in range(0, 6 * SECTOR, SECTOR))

    return replayed


Replayed = Callable[..., tuple[Cut, str]]


def test_what_was_flushed_is_there_and_the_rest_may_be_forgotten(cut: Replayed) -> None:
    requests = (write(0, "a"), write(1, "b", 2), flush(), write(0, "c"), write(4, "d"))
    forgotten = (Cut(safe=2, kept=0, forgotten=2), "abb...")
    assert forgotten == cut(*requests, counted=3, keep=False)
    assert (Cut(safe=2, kept=2, forgotten=0), "cbb.d.") == cut(*requests, counted=3, keep=True)


def test_the_last_of_several_writes_to_a_place_wins(cut: Replayed) -> None:
    requests = (write(0, "a"), flush(), write(0, "b"), flush())
    assert cut(*requests, counted=4, keep=False)[1] == "b....."


def test_nothing_is_safe_before_the_first_flush(cut: Replayed) -> None:
    assert cut(write(0, "a"), counted=0, keep=False) == (Cut(safe=0, kept=0, forgotten=1), "......")


def test_a_discard_changes_nothing_and_has_no_data(cut: Replayed) -> None:
    requests = (write(0, "a"), discard(0, 4), write(1, "b"), flush())
    assert (Cut(safe=2, kept=0, forgotten=0), "ab....") == cut(*requests, counted=4, keep=False)


def test_a_write_that_never_came_to_its_place_hides_none_that_was_flushed(cut: Replayed) -> None:
    requests = (write(0, "a"), HOLE, write(1, "b"), flush())
    assert (Cut(safe=2, kept=0, forgotten=0), "ab....") == cut(*requests, counted=4, keep=False)


def test_the_power_may_have_gone_before_the_last_request(tmp_path: Path, cut: Replayed) -> None:
    cut(write(0, "a"), flush(), write(0, "b"), flush(), counted=4, keep=False)
    log, image = tmp_path / "log", tmp_path / "image"
    assert writelog.count(log, image, before=SECTOR) == (0, 4)
    assert writelog.count(log, image, before=4 * SECTOR) == (2, 4)
    image.write_bytes(b"." * (SECTORS * SECTOR))
    done = writelog.replay(log, image, lambda: False, requests=3)
    assert done == Cut(safe=1, kept=0, forgotten=1)
    assert image.read_bytes()[:1] == b"a"


def test_a_log_that_ends_within_a_request_ends_before_it(cut: Replayed) -> None:
    assert cut(write(0, "a"), flush(), write(9, "b")[:100], counted=2, keep=True)[1] == "a....."


def test_a_log_of_a_machine_that_wrote_nothing_changes_nothing(tmp_path: Path) -> None:
    log, image = tmp_path / "log", tmp_path / "image"
    log.write_bytes(bytes(4 * SECTOR))
    image.write_bytes(b"." * SECTOR)
    assert writelog.replay(log, image, lambda: True) == Cut(safe=0, kept=0, forgotten=0)
    assert image.read_bytes() == b"." * SECTOR


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    log, image = tmp_path / "log", tmp_path / "image"
    log.write_bytes(b"x" * SECTOR)
    image.write_bytes(b"." * SECTOR)
    with pytest.raises(BadLog, match="its head is"):
        writelog.replay(log, image, lambda: True)


def test_a_folder_with_a_comma_is_named_to_qemu_as_it_is() -> None:
    words = writelog.drive(Path("/a, b/image"), Path("/a, b/log"))
    assert json.loads(words[1])["file"] == {"driver": "file", "filename": "/a, b/image"}

"""A disk's content, read from its files: always what a plain overlay in memory would show."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.content import changes, compare, flat
from reconciler.content.image import Overlaid, Plain
from reconciler.content.spans import Span, total, union
from reconciler.kernel import extents, ioctl
from reconciler.kernel.port import CloneMethod
from reconciler.store import files
from reconciler.store.finding import StoreDamaged
from statemachine.units import Bytes
from tests.unit.diskyard import CHUNK, overlaid, store

CHUNKS = 300
"""So many that one read takes pieces of 1 MiB and a part of one."""
SIZE = CHUNKS * CHUNK - 512
"""The last chunk of the disk is not whole."""

pieces = st.one_of(st.just(b""), st.binary(min_size=1, max_size=8))
changed = st.dictionaries(st.integers(0, CHUNKS - 1), pieces, max_size=40)
runs = st.lists(st.tuples(st.integers(0, CHUNKS - 1), st.integers(1, 280), pieces), max_size=4)


def spread(single: dict[int, bytes], long: list[tuple[int, int, bytes]]) -> dict[int, bytes]:
    """Return changes with long runs in them."""
    found = dict(single)
    for start, count, data in long:
        for old in range(start, min(CHUNKS, start + count)):
            found.setdefault(old, data)
    return found


def base_of(filled: dict[int, bytes], length: int = SIZE) -> bytes:
    return overlaid(bytes(SIZE), filled)[:length]


@contextmanager
def image(base: bytes, written: dict[int, bytes]) -> Iterator[tuple[Path, Overlaid]]:
    """Lay a disk into files, the base with holes, and open it."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        with (folder / "base").open("wb") as file:
            for at in range(0, len(base), CHUNK):
                extents.write_sparse(file.fileno(), base[at : at + CHUNK], at)
            os.ftruncate(file.fileno(), len(base))
        (folder / "cow").write_bytes(store(written))
        below = stack.enter_context(files.opened(folder / "base"))
        cow = stack.enter_context(files.opened(folder / "cow"))
        found = changes.read_changes(cow, disk=Bytes(SIZE))
        yield folder, Overlaid(base=Plain.of(below, SIZE), store=cow, changes=found)


@given(base=changed, single=changed, long=runs, length=st.sampled_from([SIZE, 512, 1000 * 512]))
def test_flat_is_the_overlay(
    base: dict[int, bytes],
    single: dict[int, bytes],
    long: list[tuple[int, int, bytes]],
    length: int,
) -> None:
    written = spread(single, long)
    whole = overlaid(base_of(base, length).ljust(SIZE, b"\0"), written)
    with image(base_of(base, length), written) as (folder, disk):
        assert disk.changes.chunks == len(written)
        with (folder / "flat").open("w+b") as target:
            flat.write(disk, target.fileno())
            assert flat.digest(target.fileno()) == hashlib.sha256(whole).hexdigest()
        assert (folder / "flat").read_bytes() == whole
        blocks = (folder / "flat").stat().st_blocks * 512
        filled = [at for at in range(0, SIZE, CHUNK) if any(whole[at : at + CHUNK])]
        assert blocks <= (len(filled) + 2) * CHUNK


@given(base=changed, single=changed, long=runs, start=st.integers(0, SIZE - 1), data=st.data())
def test_any_part_can_be_read(
    base: dict[int, bytes],
    single: dict[int, bytes],
    long: list[tuple[int, int, bytes]],
    start: int,
    data: st.DataObject,
) -> None:
    end = data.draw(st.integers(start, SIZE))
    written = spread(single, long)
    with image(base_of(base), written) as (_, disk):
        assert disk.read(start, end) == overlaid(base_of(base), written)[start:end]


@given(base=changed, one=changed, other=changed)
def test_what_differs_is_found_and_nothing_else(
    base: dict[int, bytes], one: dict[int, bytes], other: dict[int, bytes]
) -> None:
    def expected(left: bytes, right: bytes) -> set[int]:
        return {a for a in range(0, SIZE, CHUNK) if left[a : a + CHUNK] != right[a : a + CHUNK]}

    def blocks(spans: Iterator[Span]) -> list[int]:
        found = list(spans)
        assert found == list(union(found)), "sorted, and none touches the next"
        assert all(span.end == SIZE or span.end % CHUNK == 0 for span in found)
        return [at for span in found for at in range(span.start, span.end, CHUNK)]

    left, right = overlaid(base_of(base), one), overlaid(base_of(base), other)
    with image(base_of(base), one) as (_, first), image(base_of(base), other) as (_, second):
        found = blocks(compare.differences(first, first.base, first.written()))
        assert found == sorted(expected(left, base_of(base)))
        both = union(first.written(), second.written())
        assert blocks(compare.differences(first, second, both)) == sorted(expected(left, right))


def test_a_damaged_store_is_not_read() -> None:
    with pytest.raises(StoreDamaged, match="beyond-disk"), image(bytes(SIZE), {CHUNKS: b"past"}):
        pass


def test_a_store_that_nobody_has_written_to_has_no_changes(tmp_path: Path) -> None:
    (tmp_path / "cow").write_bytes(bytes(CHUNK))
    with files.opened(tmp_path / "cow") as descriptor:
        assert changes.read_changes(descriptor, disk=Bytes(SIZE)).chunks == 0


class Sharing:
    """Stands in for a file system that shares blocks, and counts what is shared."""

    def __init__(self, *, parts: bool = True) -> None:
        self.parts = parts
        self.shared: list[Span] = []
        self.refused = 0

    def __call__(self, target: int, request: int, given: int | bytearray) -> None:
        """Do what FICLONE and FICLONERANGE do."""
        if isinstance(given, int):
            assert request == ioctl.FICLONE
            os.sendfile(target, given, 0, SIZE)
            return
        assert request == ioctl.FICLONERANGE
        if not self.parts:
            self.refused += 1
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        source, start, length, at = ioctl.FILE_CLONE_RANGE.unpack(given)
        os.pwrite(target, os.pread(source, length, start), at)
        self.shared.append(Span(at, at + length))


@pytest.mark.parametrize("parts", [True, False])
def test_a_base_that_can_be_shared_is_shared_and_zeros_become_holes(
    monkeypatch: pytest.MonkeyPatch, *, parts: bool
) -> None:
    sharing = Sharing(parts=parts)
    monkeypatch.setattr(ioctl, "call", sharing)
    base = base_of({1: b"kept", 2: b"overwritten", 3: b"zeroed"})
    written = {2: b"new", 3: b"", 9: b"more"}
    with image(base, written) as (folder, disk), (folder / "flat").open("w+b") as target:
        told: list[tuple[int, int]] = []
        method = flat.write(disk, target.fileno(), lambda done, all_: told.append((done, all_)))
        assert method is CloneMethod.REFLINK
        written_blocks = [Span(2 * CHUNK, 3 * CHUNK), Span(9 * CHUNK, 10 * CHUNK)]
        assert sharing.shared == (written_blocks if parts else [])
        assert sharing.refused == (0 if parts else 1), "it is not tried again and again"
        assert told[-1] == (3 * CHUNK, 3 * CHUNK)
        assert (folder / "flat").read_bytes() == overlaid(base, written)
        assert Span(3 * CHUNK, 4 * CHUNK) not in [
            Span(start, start + CHUNK)
            for begin, end in extents.data_ranges(target.fileno(), SIZE)
            for start in range(begin, end, CHUNK)
        ]


def test_where_no_hole_can_be_punched_zeros_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_holes(_descriptor: int, _start: int, _length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(ioctl, "call", Sharing())
    monkeypatch.setattr(ioctl, "punch_hole", no_holes)
    base = base_of({3: b"zeroed"})
    with image(base, {3: b""}) as (folder, disk), (folder / "flat").open("w+b") as target:
        flat.write(disk, target.fileno())
        assert (folder / "flat").read_bytes() == bytes(SIZE)


def test_a_file_that_ends_early_is_an_error_and_not_zeros(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(bytes(100))
    with files.opened(tmp_path / "base") as descriptor:
        shortened = Plain(descriptor=descriptor, size=200, length=200)
        with pytest.raises(OSError, match="ended early"):
            shortened.read(0, 200)


def test_a_union_joins_what_touches() -> None:
    found = list(union([(0, 4), (8, 9)], [(4, 6), (8, 12), (20, 20)], []))
    assert found == [Span(0, 6), Span(8, 12)]
    assert total(found) == 10

"""Writing a store anew on real files: needs no device-mapper, and no privilege."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.content.changes import read_changes
from reconciler.content.image import Overlaid, Plain
from reconciler.kernel.linux import LinuxKernel
from reconciler.kernel.storejob import StoreJob
from reconciler.store.finding import StoreDamaged
from reconciler.store.layout import Header
from statemachine.fileidentity import FileIdentity
from statemachine.units import Bytes
from tests.unit.cowfiles import HEADER, SMALL, written

kernel = LinuxKernel()


def identity(path: Path) -> FileIdentity:
    found = kernel.identify(path)
    assert found is not None
    return found


def content(base: Path, cow: Path, size: int) -> bytes:
    """Return what a disk shows, by the reader that flatten and diff have."""
    below, store = os.open(base, os.O_RDONLY), os.open(cow, os.O_RDONLY)
    try:
        changes = read_changes(store, disk=Bytes(size))
        image = Overlaid(base=Plain.of(below, size), store=store, changes=changes)
        return image.read(0, size)
    finally:
        os.close(below)
        os.close(store)


def made(folder: Path, header: Header, chunks: int) -> StoreJob:
    """Make a base and a store: a third as in the base, a third zeros, a third data."""
    folder.chmod(0o700)
    size = chunks * header.chunk_bytes - 512 if header is HEADER else chunks * header.chunk_bytes
    base, cow = folder / "base", folder / "cow"
    base.write_bytes(os.urandom(size))
    raw = bytearray(written(header, chunks, chunks=2 * chunks + 4))
    pairs = [number for number in range(2 * chunks) if not header.is_metadata(number)][:chunks]
    for old, new in enumerate(pairs):
        piece = base.read_bytes()[old * header.chunk_bytes : (old + 1) * header.chunk_bytes]
        data = [piece, b"", os.urandom(header.chunk_bytes)][old % 3].ljust(
            header.chunk_bytes, b"\0"
        )
        raw[new * header.chunk_bytes : (new + 1) * header.chunk_bytes] = data
    cow.write_bytes(raw)
    return StoreJob(
        path=cow,
        expected=identity(cow),
        into=folder / ".cow.new",
        base=base,
        base_expected=identity(base),
        disk=Bytes(size),
    )


@pytest.mark.parametrize(("header", "chunks"), [(HEADER, 300), (SMALL, 96), (SMALL, 97)])
def test_the_disk_shows_the_same_and_the_store_is_a_third(
    tmp_path: Path, header: Header, chunks: int
) -> None:
    job = made(tmp_path, header, chunks)
    before = content(job.base, job.path, job.disk.count)
    done = kernel.compact_store(job)
    assert done.made == identity(job.into)
    assert done.dropped == -(-chunks // 3)
    assert done.after < done.before
    assert content(job.base, job.into, job.disk.count) == before
    assert kernel.swap_file(job.into, done.made, job.path, job.expected)
    assert content(job.base, job.path, job.disk.count) == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["base", "cow"]
    again = kernel.compact_store(
        StoreJob(
            path=job.path,
            expected=identity(job.path),
            into=job.into,
            base=job.base,
            base_expected=job.base_expected,
            disk=job.disk,
        )
    )
    assert again.made is None
    assert not job.into.exists()


def test_a_damaged_store_is_left_as_it_is(tmp_path: Path) -> None:
    job = made(tmp_path, HEADER, 30)
    with job.path.open("r+b") as file:
        file.seek(HEADER.chunk_bytes)
        file.write((2**40).to_bytes(8, "little"))
    before = job.path.read_bytes()
    with pytest.raises(StoreDamaged, match="below"):
        kernel.compact_store(job)
    assert job.path.read_bytes() == before
    assert not job.into.exists()

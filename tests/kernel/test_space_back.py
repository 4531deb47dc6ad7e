"""Space that comes back: discards of a live disk, and stores made smaller, on the real kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kernel.host import MIB, Host, digest, tool

pytestmark = pytest.mark.kernel

PART = MIB // 2


def room(path: Path) -> int:
    return path.stat().st_blocks * 512


def write(device: Path, data: bytes, at: int) -> None:
    opened = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    try:
        assert os.pwrite(opened, data, at) == len(data)
        os.fsync(opened)
    finally:
        os.close(opened)


def test_what_is_discarded_and_what_is_as_in_the_base_gives_room_back(host: Host) -> None:
    base = host.make_file("base", 4 * MIB)
    base.write_bytes(os.urandom(4 * MIB))
    spec = host.folder / "spec.toml"
    spec.write_text(f'[[disk]]\nname = "sb-1"\nbase = "{base}"\ndiscard = true\n')
    host.cli("apply", "-f", spec, "--wait")
    device, cow = host.device("sb-1"), Path(host.record("sb-1").cow_path)
    assert tool("dmsetup", "table", device).endswith("1 discard_zeroes_cow")
    write(device, os.urandom(2 * MIB), 0)
    write(device, base.read_bytes()[:PART], 0)  # as in the base again
    write(device, bytes(PART), MIB)  # zeros
    full = room(cow)
    tool("blkdiscard", "-o", 3 * PART, "-l", PART, device)
    after_discard = room(cow)
    assert full - after_discard >= PART - 64 * 1024
    before = digest(device)
    host.cli("pause", "sb-1", "--wait")
    paused = room(cow)
    host.cli("sparsify", "sb-1", "--wait")
    small = room(cow)
    # A quarter of what was written is data still; the rest is as the base, zeros, or discarded.
    assert paused - small >= 2 * PART - 64 * 1024
    assert small <= PART + 128 * 1024
    print(f"room: {full}, after the discard {after_discard}, after sparsify {small} bytes")  # noqa: T201
    host.cli("fsck", "sb-1")
    host.cli("restore", "sb-1", "--wait")
    assert digest(device) == before
    host.cli("remove", "sb-1", "--wait")
    host.assert_nothing_left()

"""Disks that are larger than their base, on the real kernel: live, under writes, and offline."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kernel.host import MIB, Host, digest, tool

pytestmark = pytest.mark.kernel

PART = 64 * 1024


def content(device: Path, size: int) -> bytes:
    with device.open("rb", buffering=0) as file:
        return os.read(file.fileno(), size)


def write(device: Path, data: bytes, at: int) -> None:
    opened = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    try:
        assert os.pwrite(opened, data, at) == len(data)
        os.fsync(opened)
    finally:
        os.close(opened)


def grown_bytes(device: Path) -> int:
    return int(tool("blockdev", "--getsize64", device))


def test_a_live_disk_grows_twice_under_its_user_and_is_the_same_after_a_restore(host: Host) -> None:
    base = host.make_file("base", MIB + 512)  # no whole number of chunks
    base.write_bytes(os.urandom(MIB + 512))
    device = host.live("sb-1", base)
    expected = bytearray(base.read_bytes()) + bytearray(5 * MIB - MIB - 512)
    with device.open("rb") as held:
        for round_, size in enumerate((3 * MIB + 512, 5 * MIB)):
            before = os.urandom(PART)
            write(device, before, 8192 + round_ * PART)
            expected[8192 + round_ * PART :][:0] = b""
            expected[8192 + round_ * PART : 8192 + (round_ + 1) * PART] = before
            host.cli("grow", "sb-1", "--size", size, "--wait")
            assert grown_bytes(device) == size
            after = os.urandom(PART)
            write(device, after, size - PART - 4096)
            expected[size - PART - 4096 : size - 4096] = after
        assert held.read(16) == bytes(expected[:16])
    assert content(device, 6 * MIB) == bytes(expected)
    assert host.cli("grow", "sb-1", "--size", MIB + 512, "--wait", expect=4).err.count("cannot")
    host.cli("pause", "sb-1", "--wait")
    assert host.dm_names() == []
    # What reads the disk without the kernel knows its size.
    flat, delta = host.folder / "flat", host.folder / "delta"
    host.cli("flatten", "sb-1", flat)
    assert flat.read_bytes() == bytes(expected)
    host.cli("fsck", "sb-1")
    host.cli("export", "sb-1", "--delta", delta)
    host.cli("import", "sb-2", "--delta", delta, "--base", base)
    host.cli("restore", "sb-1", "sb-2", "--wait")
    assert digest(host.device("sb-2")) == digest(device) == digest(flat)
    host.cli("remove", "sb-1", "sb-2", "--wait")
    assert host.dm_names() == []
    assert host.loops() == []


def test_ext4_is_made_as_large_as_its_disk_only_while_nobody_uses_it(host: Host) -> None:
    base = host.make_ext4()
    device = host.live("sb-1", base)
    with host.mounted(device) as at:
        (at / "file").write_bytes(b"kept" * 1000)
        before = os.statvfs(at).f_blocks
        answer = host.cli("grow", "sb-1", "--size", 24 * MIB, "--resize-fs", expect=1)
        assert f"in use by mount {at}" in answer.err
        assert grown_bytes(device) == 24 * MIB
    host.cli("grow", "sb-1", "--size", 24 * MIB, "--resize-fs")
    with host.mounted(device) as at:
        assert (at / "file").read_bytes() == b"kept" * 1000
        assert os.statvfs(at).f_blocks > 2 * before
    host.cli("pause", "sb-1", "--wait")
    answer = host.cli("grow", "sb-1", "--size", 24 * MIB, "--resize-fs", expect=4)
    assert "byre restore sb-1" in answer.err
    host.cli("remove", "sb-1", "--wait")

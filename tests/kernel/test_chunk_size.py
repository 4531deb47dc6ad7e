"""Chunks of another size on the real kernel: a whole life, a full rewrite, adoption."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.drivers.cow_room import cow_size
from reconciler.store.files import check
from statemachine.head import HEAD_NAME
from statemachine.observed import DmDevice, SnapshotHealth
from statemachine.units import Bytes
from tests.kernel.host import MIB, Host, digest, tool

pytestmark = pytest.mark.kernel

KIB = 1024
CHUNKS = [4 * KIB, 16 * KIB, 64 * KIB]
ODD_BYTES = 16 * MIB + 5 * 512
"""No multiple of any chunk: the last one is cut short."""


def seen(device: Path, host: Host) -> DmDevice:
    found = host.kernel.dm(device.name)
    assert found is not None
    assert found.table is not None
    assert found.status is not None
    return found


def rewrite(device: Path, size: int, piece: int) -> None:
    """Write the whole device in pieces of this size, from its end to its beginning, durably."""
    pattern = os.urandom(MIB)
    with device.open("r+b", buffering=0) as file:
        for offset in reversed(range(0, size, piece)):
            file.seek(offset)
            file.write(pattern[offset % (MIB // 2) :][: min(piece, size - offset)])
        os.fsync(file.fileno())


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_life_keeps_every_byte_and_a_full_rewrite_never_overflows(host: Host, chunk: int) -> None:
    base = host.make_file("base", ODD_BYTES)
    base.write_bytes(os.urandom(MIB) * 16 + os.urandom(5 * 512))
    device = host.live("sb-1", base, "--chunk-size", f"{chunk // KIB}KiB")
    before = seen(device, host)
    assert before.table is not None
    assert before.table.chunk.to_bytes().count == chunk
    [cow] = (host.root / "cow").iterdir()
    assert cow.stat().st_size == cow_size(Bytes(ODD_BYTES), Bytes(chunk)).count
    assert digest(device) == digest(base)

    rewrite(device, ODD_BYTES, 32 * KIB)
    after = seen(device, host)
    assert after.status is not None
    assert after.status.health is SnapshotHealth.VALID
    whole = digest(device)

    host.cli("pause", "sb-1", "--wait")
    report = check(cow, disk=Bytes(ODD_BYTES))
    assert (report.findings, report.exceptions) == ((), -(-ODD_BYTES // chunk))
    tool("udevadm", "settle")
    host.cli("restore", "sb-1", "--wait")
    tool("udevadm", "settle")
    assert whole == digest(device)
    host.cli("create", "sb-1", "--base", base, "--chunk-size", "128KiB", expect=4)
    host.cli("remove", "sb-1", "--wait")
    host.assert_nothing_left()
    host.assert_proved()


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_disk_of_a_lost_log_is_adopted_with_its_chunks(host: Host, chunk: int) -> None:
    device = host.live("sb-1", host.make_ext4(), "--chunk-size", chunk)
    with host.mounted(device) as at:
        (at / "note").write_text("kept")
    for file in [*host.root.glob("byre.db*"), host.root / HEAD_NAME]:
        file.unlink()
    lives = host.kernel_side()["dm lives"]
    host.cli("run", "--once")
    host.cli("orphans", "--adopt", device.name)
    assert lives == host.kernel_side()["dm lives"]
    assert host.record("sb-1").wanted.chunk_size == Bytes(chunk)
    host.cli("pause", "sb-1", "--wait")
    tool("udevadm", "settle")
    host.cli("restore", "sb-1", "--wait")
    tool("udevadm", "settle")
    with host.mounted(device) as at:
        assert (at / "note").read_text() == "kept"
    host.cli("remove", "sb-1", "--wait")
    tool("udevadm", "settle")
    host.assert_proved()

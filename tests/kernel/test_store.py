"""A paused disk, read from its CoW file alone: no device, no loop, and the same bytes."""

from __future__ import annotations

import os

import pytest

from reconciler.store import files, reader
from statemachine.units import Bytes
from tests.kernel.host import MIB, Host

pytestmark = pytest.mark.kernel

SIZE = 8 * MIB


def test_a_paused_disk_is_its_base_under_its_exceptions(host: Host) -> None:
    base = host.make_ext4(size=SIZE)
    device = host.live("sb-1", base)
    with host.mounted(device) as at:
        (at / "data").write_bytes(os.urandom(2 * MIB + 12345))
    shown = device.read_bytes()
    status = host.kernel.dm(device.name)
    assert status is not None

    host.cli("pause", "sb-1", "--wait")
    host.assert_nothing_in_kernel()
    [name] = host.cows()
    cow = host.root / "cow" / name
    assert files.usage(cow) == status.status
    report = files.check(cow, disk=Bytes(SIZE))
    assert report.findings == ()
    assert report.exceptions > 2 * MIB // 4096

    whole = bytearray(base.read_bytes())
    with files.opened(cow) as descriptor:
        header, size = reader.read_header(descriptor), reader.file_size(descriptor)
        assert header is not None
        chunk = header.chunk_bytes
        for each in reader.exceptions(descriptor, header, size=size, disk=Bytes(SIZE)):
            data = os.pread(descriptor, chunk, each.new * chunk)
            whole[each.old * chunk : each.old * chunk + chunk] = data
    assert bytes(whole) == shown


def test_a_disk_that_a_pause_ended_before_any_write(host: Host) -> None:
    host.live("sb-1", host.make_ext4())
    host.cli("pause", "sb-1", "--wait")
    [name] = host.cows()
    report = files.check(host.root / "cow" / name, disk=Bytes(SIZE))
    assert (report.exceptions, report.sound) == (0, True)
    assert report.status is not None
    assert (report.status.used, report.status.metadata) == (report.status.metadata,) * 2

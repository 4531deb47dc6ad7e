"""A throwaway disk on the real kernel: a transient store, gone with its device."""

from __future__ import annotations

import os

import pytest

from tests.kernel.cli import until
from tests.kernel.host import MIB, Host, digest, tool

pytestmark = pytest.mark.kernel


def test_a_throwaway_disk_lives_as_long_as_its_device(host: Host) -> None:
    base = host.make_ext4(size=8 * MIB)
    device = host.live("sb-1", base, "--throwaway")
    assert tool("dmsetup", "table", device.name).split()[-2:] == ["N", "8"]
    with host.mounted(device) as at:
        (at / "data").write_bytes(os.urandom(MIB))
    tool("e2fsck", "-fn", device)
    shown = digest(device)
    assert shown != digest(base)
    for words in (("pause", "sb-1"), ("fork", "sb-1", "sb-2"), ("checkpoint", "sb-1")):
        assert "throwaway" in host.cli(*words, expect=4).err
    host.cli("flatten", "sb-1", host.folder / "flat.img", expect=4)
    host.cli("run", "--once")
    assert shown == digest(device)

    host.remove_dm_by_hand(device.name)
    host.cli("run", "--once")
    until(device.exists, "it is there again")
    assert digest(base) == digest(device)
    drift = [event for event in host.history("sb-1") if event.type == "drift.detected"]
    assert [event.data["trigger"] for event in drift] == ["vanish"]
    with device.open("r+b", buffering=0) as file:
        file.write(os.urandom(8 * MIB))
    assert [event.type for event in host.history("sb-1")][-1] != "disk.faulted"
    host.assert_proved()
    host.cli("remove", "sb-1", "--wait")
    host.assert_nothing_left()

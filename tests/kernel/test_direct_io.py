"""Direct IO of a disk's own loop on the real kernel, on ext4 and on a file system without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from statemachine.observed import Loop
from tests.kernel.cli import until
from tests.kernel.host import MIB, Host, digest, tool

pytestmark = pytest.mark.kernel

PAGE_BYTES = 4096
WRITTEN = 8 * MIB


@pytest.fixture
def on_ext4(host: Host) -> Iterator[Host]:
    """A host whose root is on an ext4 of its own."""
    image = host.make_file("room.ext4", 96 * MIB)
    tool("mke2fs", "-q", "-t", "ext4", "-m", "0", image)
    host.root.mkdir(mode=0o700)
    tool("mount", "-o", "loop", image, host.root)
    host.root.chmod(0o700)
    (host.root / "config.toml").write_text('low_space = "2MiB"\ncritical_space = "1MiB"\n')
    yield host
    host.cli.end_children()
    if host.cli("get", "sb-1", expect=None).code == 0:
        host.cli("remove", "sb-1", "--wait", expect=None)
    tool("umount", host.root)


def cow_loop(host: Host) -> Loop:
    [cow] = (host.root / "cow").iterdir()
    [loop] = host.loops_on(cow)
    return loop


def cached_bytes(path: Path) -> int:
    """Return how much of a file is in the page cache."""
    return int(tool("fincore", "--bytes", "--noheadings", "--output", "RES", path))


def write(device: Path) -> None:
    with device.open("r+b", buffering=0) as file:
        file.write(os.urandom(WRITTEN))
        os.fsync(file.fileno())


def test_a_disk_with_it_lives_and_leaves_next_to_nothing_in_the_page_cache(on_ext4: Host) -> None:
    device = on_ext4.live("sb-1", on_ext4.make_file("base", 16 * MIB), "--direct-io")
    assert cow_loop(on_ext4).direct_io
    assert tool("losetup", "-nO", "DIO", cow_loop(on_ext4).path) == "1"
    [cow] = (on_ext4.root / "cow").iterdir()
    write(device)
    assert cached_bytes(cow) < WRITTEN // 4
    whole = digest(device)
    on_ext4.cli("pause", "sb-1", "--wait")
    tool("udevadm", "settle")
    on_ext4.cli("restore", "sb-1", "--wait")
    tool("udevadm", "settle")
    assert cow_loop(on_ext4).direct_io
    assert whole == digest(device)
    on_ext4.cli("remove", "sb-1", "--wait")
    on_ext4.assert_proved()


def test_without_it_the_page_cache_holds_what_was_written(on_ext4: Host) -> None:
    device = on_ext4.live("sb-1", on_ext4.make_file("base", 16 * MIB))
    [cow] = (on_ext4.root / "cow").iterdir()
    write(device)
    assert not cow_loop(on_ext4).direct_io
    assert cached_bytes(cow) >= WRITTEN


def test_it_is_switched_under_a_mounted_disk_and_back_when_somebody_switches_it(
    on_ext4: Host,
) -> None:
    base = on_ext4.make_ext4()
    device = on_ext4.live("sb-1", base)
    life = on_ext4.life_of("sb-1")
    with on_ext4.mounted(device) as at:
        (at / "before").write_text("kept")
        on_ext4.cli("create", "sb-1", "--base", base, "--direct-io", "--wait")
        assert cow_loop(on_ext4).direct_io
        tool("losetup", "--direct-io=off", cow_loop(on_ext4).path)
        daemon = on_ext4.cli.daemon()
        until(lambda: cow_loop(on_ext4).direct_io, "it is on again", timeout_s=60)
        daemon.terminate()
        (at / "after").write_text("kept as well")
        on_ext4.cli("create", "sb-1", "--base", base, "--wait")
        assert not cow_loop(on_ext4).direct_io
        assert (at / "before").read_text() == "kept"
    assert life == on_ext4.life_of("sb-1")
    on_ext4.assert_proved()


def test_where_the_file_system_cannot_nothing_is_made_and_the_reason_is_said(host: Host) -> None:
    base = host.make_ext4()
    answer = host.cli("create", "sb-1", "--base", base, "--direct-io", "--wait", expect=1)
    assert "direct IO" in answer.err
    assert "direct_io = false" in answer.err
    [disk] = host.cli("get", "sb-1", "-o", "json").json
    assert [
        (each["type"], each["reason"]) for each in disk["conditions"] if each["type"] == "Stalled"
    ] == [("Stalled", "no-direct-io")]
    host.assert_nothing_left()
    host.cli("create", "sb-1", "--base", base, "--wait")
    assert not cow_loop(host).direct_io

"""fsck, flatten, diff, export and import on the real kernel: its own status, its own bytes."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from statemachine.observed import SnapshotStatus
from tests.kernel.cli import Cli
from tests.kernel.counting import assert_of_one_moment, counting
from tests.kernel.host import MIB, Host, digest, tool

pytestmark = pytest.mark.kernel

CHUNK = 4096
SIZE = 16 * MIB


def scatter(device: Path, seed: int) -> None:
    """Write pieces of many sizes at many places, zeros among them, and have them written."""
    dice = random.Random(seed)  # noqa: S311 - the same pieces each time
    descriptor = os.open(device, os.O_WRONLY)
    try:
        for number in range(300):
            size = dice.choice([512, 4096, 5000, 65536])
            at = dice.randrange(0, SIZE - size)
            data = bytes(size) if number % 5 == 0 else dice.randbytes(size)
            os.pwrite(descriptor, data, at)
        os.pwrite(descriptor, b"the very last bytes", SIZE - 19)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def written(host: Host, name: str = "sb-1") -> Path:
    """Make a live disk with files on it, and with pieces written across them; its device."""
    base = host.make_ext4(f"{name}.ext4", size=SIZE)
    device = host.live(name, base)
    with host.mounted(device) as at:
        (at / "data").write_bytes(os.urandom(3 * MIB + 12345))
        (at / "zeros").write_bytes(bytes(MIB))
    scatter(device, 7)
    return device


def status(host: Host, device: Path) -> SnapshotStatus:
    found = host.kernel.dm(device.name)
    assert found is not None
    assert found.status is not None
    return found.status


def test_fsck_says_what_the_kernels_status_says(host: Host) -> None:
    device = written(host)
    shown = status(host, device)
    for is_live in (True, False):
        found = host.cli("fsck", "sb-1", "-o", "json").json
        assert (found["sound"], found["live"]) == (True, is_live)
        usage = found["usage"]
        assert usage["health"] == shown.health.value
        assert usage["used_bytes"] == shown.used.to_bytes().count
        assert usage["capacity_bytes"] == shown.total.to_bytes().count
        assert usage["metadata_bytes"] == shown.metadata.to_bytes().count
        assert found["exceptions"] * CHUNK <= usage["used_bytes"] - usage["metadata_bytes"]
        if is_live:
            host.cli("pause", "sb-1", "--wait")
    host.cli("restore", "sb-1", "--wait")
    assert status(host, device) == shown


def test_fsck_and_the_kernel_agree_that_a_store_is_lost(host: Host) -> None:
    written(host)
    host.cli("pause", "sb-1", "--wait")
    [name] = host.cows()
    with (host.root / "cow" / name).open("r+b") as file:
        file.seek(4)
        file.write(bytes(4))
    found = host.cli("fsck", "sb-1", "-o", "json", expect=1).json
    assert [each["kind"] for each in found["findings"]] == ["invalid"]
    assert found["usage"]["health"] == "invalid"


def test_a_flat_image_is_the_device_live_and_paused(host: Host) -> None:
    device = written(host)
    copy = host.folder / "dd.img"
    tool("dd", f"if={device}", f"of={copy}", "bs=1M", "status=none")
    shown = digest(copy)
    for state in ("live", "paused"):
        image = host.folder / f"{state}.img"
        said = host.cli("flatten", "sb-1", image, "-o", "json").json
        assert shown == said["sha256"]
        tool("cmp", copy, image)
        assert (said["frozen_ms"] > 0) is (state == "live")
        assert image.stat().st_blocks * 512 < SIZE
        if state == "live":
            assert not host.kernel_side()["dm"][0][4], "it is not suspended any more"  # type: ignore[index]
            scatter(device, 8)
            host.cli("pause", "sb-1", "--wait")
            host.cli("restore", "sb-1", "--wait")
            tool("dd", f"if={device}", f"of={copy}", "bs=1M", "status=none")
            shown = digest(copy)
            host.cli("pause", "sb-1", "--wait")
    story = host.story("sb-1")
    assert story.count("exported") == 2
    host.assert_proved()


def test_a_file_system_lives_on_in_a_disk_on_its_image(host: Host) -> None:
    device = host.live("sb-1", host.make_ext4(size=SIZE))
    with host.mounted(device) as at:
        (at / "kept").write_text("kept")
    image = host.folder / "golden.ext4"
    host.cli("flatten", "sb-1", image)
    tool("e2fsck", "-fn", image)
    with host.mounted(host.live("sb-2", image)) as at:
        assert (at / "kept").read_text() == "kept"
    host.cli("remove", "sb-1", "sb-2", "--wait")
    host.assert_nothing_left()


def test_a_live_disk_beside_a_running_reconciler_and_a_writer(host: Host) -> None:
    """Every image is of one moment: two counters that are written together are the same in it."""
    device = host.live("sb-1", host.make_file("base", SIZE))
    daemon = host.cli.daemon()
    with counting(device, SIZE):
        for number in range(3):
            image = host.folder / f"{number}.img"
            host.cli("flatten", "sb-1", image, "--no-digest")
            assert_of_one_moment(image)
    assert daemon.terminate() == 0
    host.until_settled("sb-1", "snapshotted")
    host.cli("remove", "sb-1", "--wait")
    host.assert_nothing_left()


def test_a_paused_disk_is_carried_to_another_root(host: Host) -> None:
    device = host.live("sb-1", host.make_ext4("sb-1.ext4", size=SIZE))
    with host.mounted(device) as at:
        (at / "data").write_bytes(os.urandom(3 * MIB + 12345))
    shown = digest(device)
    host.cli("pause", "sb-1", "--wait")
    delta, base = host.folder / "sb-1.delta", host.folder / "there.ext4"
    host.cli("export", "sb-1", "--delta", delta)
    tool("cp", "--sparse=always", host.folder / "sb-1.ext4", base)
    host.cli("remove", "sb-1", "--wait")
    host.assert_nothing_left()

    there = Cli(host.folder / "other-root", host.prefix)
    there("import", "sb-9", "--delta", delta, "--base", base)
    found = there("fsck", "sb-9", "-o", "json").json
    there("restore", "sb-9", "--wait")
    assert shown == digest(host.device("sb-9"))
    usage = found["usage"]
    now = status(host, host.device("sb-9"))
    assert (usage["used_bytes"], usage["metadata_bytes"]) == (
        now.used.to_bytes().count,
        now.metadata.to_bytes().count,
    )
    with host.mounted(host.device("sb-9")) as at:
        assert (at / "data").stat().st_size == 3 * MIB + 12345
        (at / "more").write_bytes(os.urandom(MIB))
    tool("e2fsck", "-fn", host.device("sb-9"))
    there("replay", "--verify")
    there("remove", "sb-9", "--wait")
    host.assert_nothing_in_kernel()


def test_diff_tells_what_was_written_to_a_live_disk(host: Host) -> None:
    base = host.make_file("base", SIZE)
    device = host.live("sb-1", base)
    other = host.live("sb-2", base)
    for path, places in ((device, (0, 5, 6, SIZE // CHUNK - 1)), (other, (5, 9))):
        with path.open("r+b", buffering=0) as file:
            for place in places:
                file.seek(place * CHUNK)
                file.write(b"written")
    for words, expected in (
        (("sb-1",), [(0, 1), (5, 2), (SIZE // CHUNK - 1, 1)]),
        (("sb-1", "sb-2"), [(0, 1), (6, 1), (9, 1), (SIZE // CHUNK - 1, 1)]),
    ):
        found = host.cli("diff", *words, "-o", "json").json["ranges"]
        assert expected == [(e["offset"] // CHUNK, e["length"] // CHUNK) for e in found]
    host.assert_proved()


def test_diff_names_the_files_of_a_live_mounted_disk(host: Host) -> None:
    device = host.live("sb-1", host.make_ext4(size=SIZE))
    with host.mounted(device) as at:
        (at / "folder").mkdir()
        (at / "folder" / "file").write_bytes(os.urandom(100_000))
        tool("sync", "-f", at)
        found = host.cli("diff", "sb-1", "--files", "-o", "json").json
    named = {each["path"]: each["bytes"] for each in found["files"]}
    assert named["/folder/file"] >= 100_000


@pytest.mark.parametrize("chunk", ["16KiB", "64KiB"])
def test_chunks_of_other_sizes(host: Host, chunk: str) -> None:
    base = host.make_file("base", SIZE + 512)
    with base.open("r+b") as file:
        file.write(os.urandom(SIZE + 512))
    device = host.live("sb-1", base, "--chunk-size", chunk)
    scatter(device, 9)
    image = host.folder / "flat.img"
    host.cli("flatten", "sb-1", image)
    shown = digest(device)
    assert shown == digest(image)
    host.cli("pause", "sb-1", "--wait")
    assert host.cli("fsck", "sb-1", "-o", "json").json["sound"]
    delta = host.folder / "sb-1.delta"
    host.cli("export", "sb-1", "--delta", delta)
    host.cli("import", "sb-2", "--delta", delta, "--base", base)
    host.cli("restore", "sb-2", "--wait")
    assert shown == digest(host.device("sb-2"))

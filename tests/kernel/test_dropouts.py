"""What is missing, damaged, doubled or asleep: told by its name, and never guessed at."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.host import Host, digest, tool

pytestmark = pytest.mark.kernel

HEADER_BYTES = 4096


@pytest.fixture
def paused(host: Host) -> Path:
    """A paused disk's CoW file, with data in it."""
    device = host.live("sb-1", host.make_ext4())
    with host.mounted(device) as at:
        (at / "note").write_text("kept")
    host.cli("pause", "sb-1", "--wait")
    [cow] = (host.root / "cow").iterdir()
    return cow


def assert_faulted(host: Host, kind: str) -> None:
    """Check that the disk waits for a person's word and that nothing was made for it."""
    [disk] = host.cli("get", "sb-1", "-o", "json").json
    faults = [each for each in disk["conditions"] if each["type"] == "Faulted"]
    assert [kind] == [each["reason"] for each in faults]
    assert "disk.faulted" in [event.type for event in host.history("sb-1")]
    host.assert_nothing_in_kernel()


def assert_comes_back_by_retry(host: Host) -> None:
    """Check that the fault stays until a person's word, and that the data is there after it."""
    fault = host.record("sb-1").fault
    assert fault is not None
    host.cli("run", "--once", expect=fault.exit_code)
    host.cli("retry", "sb-1", "--wait")
    with host.mounted(host.device("sb-1")) as at:
        assert (at / "note").read_text() == "kept"
    host.assert_proved()


def test_a_missing_cow_file_faults_the_disk_and_no_empty_one_takes_its_place(
    host: Host, paused: Path
) -> None:
    away = paused.with_suffix(".away")
    paused.rename(away)
    answer = host.cli("restore", "sb-1", "--wait", expect=1)
    assert f"{paused} is missing" in answer.err
    assert_faulted(host, "cow-missing")
    assert not paused.exists()
    away.rename(paused)
    assert_comes_back_by_retry(host)


def test_another_file_in_place_of_the_cow_file_is_refused(host: Host, paused: Path) -> None:
    away = paused.with_suffix(".away")
    paused.rename(away)
    tool("cp", "--preserve=all", "--sparse=always", away, paused)
    answer = host.cli("restore", "sb-1", "--wait", expect=4)
    for file in (paused, away):
        assert f"inode {file.stat().st_ino}" in answer.err
    assert_faulted(host, "identity-mismatch")
    away.rename(paused)
    assert_comes_back_by_retry(host)


def test_a_cow_file_with_a_zeroed_header_faults_the_disk(host: Host, paused: Path) -> None:
    with paused.open("r+b") as file:
        header = file.read(HEADER_BYTES)
        file.seek(0)
        file.write(bytes(HEADER_BYTES))
    host.cli("restore", "sb-1", "--wait", expect=1)
    assert_faulted(host, "cow-empty")
    with paused.open("r+b") as file:
        file.write(header)
    assert_comes_back_by_retry(host)


def test_a_faulted_disk_can_still_be_removed(host: Host, paused: Path) -> None:
    paused.unlink()
    host.cli("restore", "sb-1", "--wait", expect=1)
    host.cli("remove", "sb-1", "--wait")
    host.assert_nothing_left()


def test_a_second_loop_on_one_cow_file_is_refused_by_its_name(host: Host, paused: Path) -> None:
    before = digest(paused)
    loop = tool("losetup", "--find", "--show", paused)
    answer = host.cli("restore", "sb-1", "--wait", "--timeout", "1", expect=5)
    assert f"already on {loop}" in answer.err
    assert f"losetup -d {loop}" in answer.err
    assert [loop] == [each.path for each in host.loops()]
    assert host.dm_names() == []
    assert before == digest(paused)
    tool("losetup", "-d", loop)
    host.cli("restore", "sb-1", "--wait")


def test_a_live_disk_whose_cow_file_was_deleted_is_told_where_its_data_still_is(
    host: Host,
) -> None:
    host.live("sb-1", host.make_ext4())
    [cow] = (host.root / "cow").iterdir()
    loop = next(each.path for each in host.loops_on(cow))
    cow.unlink()
    answer = host.cli("run", "--once", expect=1)
    assert loop in answer.err
    assert [host.device("sb-1").name] == host.dm_names()
    host.cli("remove", "sb-1", "--wait")
    host.assert_nothing_left()


@pytest.fixture(params=["queue stopped", "asleep"])
def silent_udev(request: pytest.FixtureRequest, host: Host) -> Iterator[None]:
    """Take udevd away for a test, in two ways; `host` has seen it come to rest before."""
    assert host.dm_names() == []
    pids = [int(pid) for pid in tool("pidof", "systemd-udevd").split()]
    tool("udevadm", "settle")
    if request.param == "asleep":
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
    else:
        tool("udevadm", "control", "--stop-exec-queue")
    yield
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    tool("udevadm", "control", "--start-exec-queue")
    tool("udevadm", "settle")


@pytest.mark.usefixtures("silent_udev")
def test_a_disk_lives_without_udev(host: Host) -> None:
    device = host.live("sb-1", host.make_ext4(), "--link", host.folder / "links" / "sb-1")
    with host.mounted(host.folder / "links" / "sb-1") as at:
        (at / "note").write_text("kept")
    host.cli("pause", "sb-1", "--wait")
    host.assert_nothing_in_kernel()
    host.cli("restore", "sb-1", "--wait")
    with host.mounted(device) as at:
        assert (at / "note").read_text() == "kept"
    host.cli("remove", "sb-1", "--wait")
    host.assert_nothing_left()

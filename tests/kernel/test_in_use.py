"""Disks in use on a real device-mapper: left alone, their holders named, and gone when let go.

The running reconciler looks at a disk in use once an hour here, and at everything every ten
minutes: whatever goes on in these tests was woken by the kernel.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from statemachine.events import Event
from statemachine.machine import State
from tests.kernel.cli import END_S, Child, until
from tests.kernel.host import Host, digest, tool

pytestmark = pytest.mark.kernel

HOUR_S = 3600

Hold = Callable[[Host, Path], AbstractContextManager[str]]


@pytest.fixture
def daemon(host: Host) -> Child:
    host.root.mkdir(mode=0o700)
    slow = f"blocked_poll_s = {HOUR_S}\nblocked_poll_cap_s = {HOUR_S}\n"
    (host.root / "config.toml").write_text(slow)
    return host.cli.daemon()


@pytest.fixture
def link(host: Host) -> Path:
    return host.folder / "links" / "sb-1.link"


@pytest.fixture
def device(host: Host, daemon: Child, link: Path) -> Path:
    """A live disk of the running reconciler, with a file system, whose users may take an hour."""
    assert daemon.is_alive
    words = ("--link", link, "--busy-timeout", HOUR_S)
    made = host.live("sb-1", host.make_ext4(), *words)
    tool("udevadm", "settle")
    return made


# --- ways to hold a device; each yields the name it goes by ---------------------------------------


@contextmanager
def by_a_process(host: Host, device: Path) -> Iterator[str]:
    """Hold it by a process that is killed, as a VMM."""
    del host
    with device.open("rb") as file:
        process = subprocess.Popen(["sleep", "600"], stdin=file)
    try:
        yield f"process sleep (pid {process.pid})"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@contextmanager
def by_an_open_file(host: Host, device: Path) -> Iterator[str]:
    """Hold it by a process that closes it and lives on."""
    del host
    name = Path("/proc/self/comm").read_text().strip()
    with device.open("rb"):
        yield f"process {name} (pid {os.getpid()})"


@contextmanager
def by_a_jailed_file(host: Host, device: Path) -> Iterator[str]:
    """Hold it through another node of the same device, as a VMM in a jail does."""
    node = Path("/dev", f"{host.prefix}jailed")  # the tests' own folder is on a nodev mount
    os.mknod(node, 0o060600, device.stat().st_rdev)
    try:
        with by_an_open_file(host, node) as name:
            yield name
    finally:
        node.unlink()


@contextmanager
def by_a_mount(host: Host, device: Path) -> Iterator[str]:
    """Hold it by a mount."""
    with host.mounted(device) as at:
        yield f"mount {at}"


@contextmanager
def by_a_device_above(host: Host, device: Path) -> Iterator[str]:
    """Hold it by a dm device that stands on it."""
    above = f"{host.prefix}above"
    tool("dmsetup", "create", above, "--table", f"0 2048 linear {device} 0")
    try:
        yield f"dm {above}"
    finally:
        tool("dmsetup", "remove", "--retry", above)


@contextmanager
def by_a_loop(host: Host, device: Path) -> Iterator[str]:
    """Hold it by a loop device whose file it is."""
    del host
    loop = tool("losetup", "--find", "--show", device)
    try:
        yield f"loop {loop}"
    finally:
        tool("losetup", "--detach", loop)


@contextmanager
def by_swap(host: Host, device: Path) -> Iterator[str]:
    """Hold it by swapping to it."""
    del host
    tool("mkswap", "-f", device)
    tool("swapon", device)
    try:
        yield f"swap {device.resolve()}"
    finally:
        tool("swapoff", device)


# --- what is seen ---------------------------------------------------------------------------------


def in_use_since(host: Host, seq: int) -> list[Event]:
    """Return the failures that name a holder."""
    later = [event for event in host.history("sb-1") if event.seq > seq]
    return [event for event in later if event.data.get("kind") == "in-use"]


def until_blocked(host: Host, seq: int) -> Event:
    until(lambda: bool(in_use_since(host, seq)), "the disk is in use", timeout_s=END_S)
    return in_use_since(host, seq)[0]


def holders_now(host: Host) -> list[str]:
    names: list[str] = host.cli("explain", "sb-1", "-o", "json").json["holders"]
    return names


@pytest.mark.parametrize(
    ("hold", "command"),
    [
        (by_a_process, "pause"),
        (by_a_process, "remove"),
        (by_an_open_file, "remove"),
        (by_a_jailed_file, "pause"),
        (by_a_mount, "pause"),
        (by_a_mount, "remove"),
        (by_a_device_above, "pause"),
        (by_a_loop, "pause"),
        (by_swap, "pause"),
    ],
)
def test_a_held_disk_is_left_alone_and_goes_by_itself_when_it_is_let_go(
    host: Host, device: Path, link: Path, hold: Hold, command: str
) -> None:
    with hold(host, device) as holder:
        seq = host.last_seq()
        host.cli(command, "sb-1")
        blocked = until_blocked(host, seq)
        assert holder in blocked.data["holders"]
        assert holder in blocked.data["message"]
        assert holder in holders_now(host)
        assert device.resolve() == link.resolve()
        assert len(host.cows()) == 1
    host.until_settled("sb-1", f"{command}d", timeout_s=END_S)
    host.assert_nothing_in_kernel()
    assert len(in_use_since(host, seq)) == 1, "waiting is no event"
    host.assert_proved()


def test_it_goes_when_the_last_of_several_holders_lets_go(host: Host, device: Path) -> None:
    seq = host.last_seq()
    with by_a_process(host, device) as process:
        with by_a_mount(host, device) as mount:
            host.cli("pause", "sb-1")
            assert sorted((process, mount)) == sorted(until_blocked(host, seq).data["holders"])
        until(lambda: holders_now(host) == [process], "only the process is left", timeout_s=END_S)
        assert State.SNAPSHOTTED is host.record("sb-1").state
    host.until_settled("sb-1", "paused", timeout_s=END_S)
    assert len(in_use_since(host, seq)) == 1


def test_a_killed_reconciler_goes_on_waiting_and_counts_from_the_first_look(
    host: Host, device: Path, daemon: Child
) -> None:
    seq = host.last_seq()
    with by_a_process(host, device) as holder:
        host.cli("pause", "sb-1")
        since = until_blocked(host, seq).at
        daemon.kill()
        host.cli.daemon()
        failure = host.record("sb-1").failure
        assert failure is not None
        assert (since, (holder,)) == (failure.since, failure.holders)
    host.until_settled("sb-1", "paused", timeout_s=END_S)
    assert len(in_use_since(host, seq)) == 1


@pytest.mark.parametrize("command", ["pause", "remove"])
def test_given_up_the_disk_stays_as_it_was_until_it_is_asked_for_again(
    host: Host, daemon: Child, link: Path, command: str
) -> None:
    assert daemon.is_alive
    words = ("--link", link, "--on-busy", "fail", "--busy-timeout", "1")
    device = host.live("sb-1", host.make_ext4(), *words)
    whole = digest(device)
    tool("udevadm", "settle")
    with host.mounted(device) as at:
        answer = host.cli(command, "sb-1", "--wait", "--timeout", HOUR_S, expect=1)
        assert f"in use by mount {at}, longer than 1 s: given up" in answer.err
        failure = host.record("sb-1").failure
        assert failure is not None
        assert ("permanent", (f"mount {at}",)) == (failure.consequence, failure.holders)
        assert [f"mount {at}"] == holders_now(host)
        (at / "still").write_text("it works")
        assert device.resolve() == link.resolve()
    assert whole != digest(device)
    assert State.SNAPSHOTTED is host.record("sb-1").state
    host.cli(command, "sb-1", "--wait", "--timeout", HOUR_S)
    host.assert_nothing_in_kernel()
    host.assert_proved()


def test_a_command_that_works_by_itself_sees_the_holder_let_go(host: Host) -> None:
    device = host.live("sb-1", host.make_ext4())
    with by_a_process(host, device):
        seq = host.last_seq()
        waiting = host.cli.fork("pause", "sb-1", "--wait", "--timeout", HOUR_S)
        until_blocked(host, seq)
    assert waiting.wait() == 0
    host.assert_nothing_in_kernel()

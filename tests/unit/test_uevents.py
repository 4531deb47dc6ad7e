"""Uevents, with the real kernel and loop devices on scratch files; no device is written to."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import pyudev

from reconciler.watch.hint import Hint, HintKind, Watcher
from reconciler.watch.uevents import UeventWatcher, _Messages, changed_device
from tests.unit.seen import Seen

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="attaching a loop device takes root")


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[str]:
    """Attach a loop device to a scratch file; its name is like "loop3"."""
    scratch = tmp_path / "byre-test-uevents.img"
    with scratch.open("wb") as file:
        file.truncate(1 << 20)
    device = _losetup("--find", "--show", str(scratch))
    yield Path(device).name
    _losetup("--detach", device)


def _losetup(*arguments: str) -> str:
    result = subprocess.run(
        ["losetup", *arguments], check=True, capture_output=True, text=True, timeout=30
    )
    return result.stdout.strip()


def _uevent(loop: str, action: str) -> None:
    """Let the kernel send a uevent once more (Documentation/ABI/testing/sysfs-uevent)."""
    Path(f"/sys/block/{loop}/uevent").write_text(action)


@pytest.mark.root
@needs_root
def test_a_loop_device_that_is_attached_is_a_hint_with_its_kernel_name(tmp_path: Path) -> None:
    seen, watcher = Seen(), UeventWatcher()
    watcher.start(seen)
    scratch = tmp_path / "byre-test-uevents.img"
    scratch.write_bytes(bytes(1 << 20))
    device = _losetup("--find", "--show", str(scratch))
    try:
        assert seen.has(HintKind.DEVICE, Path(device).name)
        seen.forget()
    finally:
        _losetup("--detach", device)
    assert seen.has(HintKind.DEVICE, Path(device).name)
    assert {watcher.name} == {hint.source for hint in seen.hints}
    watcher.stop()


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(("action", "seen_it"), [("change", True), ("offline", False)])
def test_only_devices_that_come_go_or_change_are_hints(
    loop: str, action: str, *, seen_it: bool
) -> None:
    seen, watcher = Seen(), UeventWatcher()
    watcher.start(seen)
    _uevent(loop, action)
    assert seen_it == seen.has(HintKind.DEVICE, loop, within_s=5 if seen_it else 0.3)
    watcher.stop()


@pytest.mark.root
@needs_root
def test_a_queue_that_overflows_means_look_at_everything_and_is_survived(loop: str) -> None:
    seen, watcher = Seen(), UeventWatcher(queue_bytes=4096)
    inside, gate = threading.Event(), threading.Event()

    def wake(hint: Hint) -> None:
        inside.set()
        gate.wait(10)
        seen(hint)

    watcher.start(wake)
    _uevent(loop, "change")
    assert inside.wait(10)
    for _ in range(500):
        _uevent(loop, "change")
    gate.set()
    assert seen.has(HintKind.ALL)
    seen.forget()
    _uevent(loop, "change")
    assert seen.has(HintKind.DEVICE, loop)
    assert watcher.unavailable == ""
    watcher.stop()


@pytest.mark.root
@needs_root
def test_stopping_is_final_and_gives_the_sockets_back(loop: str) -> None:
    seen = Seen()
    UeventWatcher().start(seen)  # what libudev opens once stays open
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        watcher = UeventWatcher()
        watcher.start(seen)
        watcher.stop()
        watcher.stop()
    assert before == len(list(Path("/proc/self/fd").iterdir()))
    _uevent(loop, "change")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImportError("No library named udev"), "libudev cannot be loaded: No library named udev"),
        (OSError("Could not create udev monitor"), "no netlink socket for uevents"),
        (PermissionError(1, "Operation not permitted"), "Operation not permitted"),
    ],
)
def test_where_there_are_no_uevents_the_watcher_says_why(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pyudev.Monitor, "from_netlink", refuse)
    watcher: Watcher = UeventWatcher()
    watcher.start(Seen())
    assert reason in watcher.unavailable
    watcher.stop()


def message(head: str, *fields: str) -> bytes:
    return b"\0".join(each.encode() for each in (head, *fields)) + b"\0"


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        (message("add@/devices/virtual/block/dm-3", "ACTION=add", "SUBSYSTEM=block"), "dm-3"),
        (message("remove@/devices/virtual/block/loop7", "SUBSYSTEM=block", "SEQNUM=9"), "loop7"),
        (message("bind@/devices/virtual/block/loop7", "SUBSYSTEM=block"), ""),
        (message("add@/devices/virtual/bdi/7:1", "ACTION=add", "SUBSYSTEM=bdi"), ""),
        (message("add@/devices/x", "SUBSYSTEM=blocking"), ""),
        (b"libudev\0\xfe\xed\xca\xfe", ""),
        (b"", ""),
        (b"add@", ""),
        (b"\xff@\xff/\xff\0SUBSYSTEM=block", ""),
    ],
)
def test_a_message_is_taken_apart(sent: bytes, name: str) -> None:
    assert changed_device(sent) == name


class Forger:
    """A socket in the place of the kernel's, with one message from a process in it."""

    def __init__(self, sender: int) -> None:
        self._left = [(message("add@/block/forged", "SUBSYSTEM=block"), (sender, 1))]

    def recvfrom(self, *_: object) -> tuple[bytes, tuple[int, int]]:
        if not self._left:
            raise BlockingIOError
        return self._left.pop()


@pytest.mark.parametrize(("sender", "count"), [(0, 1), (4711, 0)])
def test_only_what_the_kernel_sent_is_a_hint(sender: int, count: int) -> None:
    messages = _Messages(None)
    messages._socket = Forger(sender)  # type: ignore[assignment]  # noqa: SLF001 - the kernel's end
    assert len(messages.hints()) == count

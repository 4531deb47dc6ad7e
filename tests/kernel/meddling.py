"""Disks that somebody meddles with: making them, what is planted, and what must be told of it.

May be imported by the kernel tests.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from tests.kernel.host import MIB, Host, tool

SECTORS = 8 * MIB // 512
"""How long the disks of these tests are."""
LONG_S = 60.0


def make_live(host: Host, *words: object) -> Path:
    """Make a live disk with data in it, and let udev come to rest: it is slower than byre."""
    device = host.live("sb-1", host.make_ext4(), *words)
    tool("udevadm", "settle")
    write_note(host, device)
    return device


def make_attached(host: Host) -> Path:
    host.cli("create", "sb-1", "--base", host.make_ext4(), "--desired", "attached", "--wait")
    [cow] = (host.root / "cow").iterdir()
    return cow


def make_paused(host: Host) -> Path:
    make_live(host)
    host.cli("pause", "sb-1", "--wait")
    [cow] = (host.root / "cow").iterdir()
    return cow


def write_note(host: Host, device: Path) -> None:
    with host.mounted(device) as at:
        (at / "note").write_text("kept")


def assert_note(host: Host) -> None:
    with host.mounted(host.device("sb-1")) as at:
        assert (at / "note").read_text() == "kept"


def uuid(host: Host) -> str:
    record = host.record("sb-1")
    return f"BYRE-{record.id}-{record.generation}"


def node_of(device: Path) -> Path:
    """Return /dev/dm-N."""
    return device.resolve()


def assert_repaired(host: Host, seq: int, difference: str) -> None:
    """Make a pass, and check that a drift of this text came before its repair."""
    host.cli("run", "--once")
    events = [event for event in host.history("sb-1") if event.seq > seq]
    assert events[0].type == "drift.detected"
    assert any(difference in text for text in events[0].data["differences"]), events[0].data
    assert host.story("sb-1", seq) == ["detected repair", "started repair", "completed repair"]
    host.cli("run", "--once")
    assert len(host.story("sb-1", seq)) == 3
    host.assert_proved()


def assert_refused(host: Host, kind: str, *words: object) -> None:
    """Make a pass, and check that it is refused, and that `explain` says what is in the way."""
    answer = host.cli("run", "--once", expect=4)
    told = host.cli("explain", "sb-1", "-o", "json").json
    for word in words:
        assert str(word) in answer.err
        assert str(word) in told["blocker"]
    assert told["hint"]
    [disk] = host.cli("get", "sb-1", "-o", "json").json
    assert kind in [each["reason"] for each in disk["conditions"]]


def number_of(path: Path) -> int:
    """Return the device number behind a node."""
    return path.stat().st_rdev


def half_made(host: Host, *, loaded: bool) -> str:
    """Make a dm device with the disk's own name and UUID that never became live."""
    name = host.device("sb-1").name
    tool("dmsetup", "create", name, "--uuid", uuid(host), "--notable")
    if loaded:
        tool("dmsetup", "load", name, "--table", f"0 {SECTORS} zero")
    return name


def _node(path: Path) -> Callable[[], None]:
    os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(1, 15))
    return path.unlink


def _file(path: Path) -> Callable[[], None]:
    path.write_text("somebody's")
    return path.unlink


def _folder(path: Path) -> Callable[[], None]:
    path.mkdir()
    return path.rmdir


PLANTED: dict[str, Callable[[Path], Callable[[], None]]] = {
    "node": _node,
    "file": _file,
    "folder": _folder,
}
"""What somebody puts in the place of a name of ours; each returns what takes it away again."""

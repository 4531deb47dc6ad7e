"""What byre did not make is never opened for writing, changed, removed or detached by anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.host import MIB, Host, tool

pytestmark = pytest.mark.kernel

CONFUSING = (
    ("byre-x", ""),
    ("byre-test-foreign", "BYRE-x"),
    ("byre-test-linear", "BYRE-00000000000000000000000000000000-0"),
)
"""Names and UUIDs that look like byre's and are not."""


class Strangers:
    """Foreign devices, and a picture of them that must stay the same."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._loops: list[str] = []
        self._devices: list[str] = []

    def attach(self, file: Path, *options: str) -> str:
        self._loops.append(tool("losetup", "--find", "--show", *options, file))
        return self._loops[-1]

    def create(self, name: str, table: str, uuid: str = "") -> None:
        words = ["--uuid", uuid] if uuid else []
        tool("dmsetup", "create", name, *words, "--noudevsync", "--table", table)
        self._devices.append(name)

    def remove(self, name: str) -> None:
        tool("dmsetup", "remove", "--retry", "--noudevsync", name)
        self._devices.remove(name)

    def picture(self) -> list[str]:
        """Show all of them; udev, which may have one open for a moment, comes to rest first."""
        tool("udevadm", "settle")
        columns = "name,uuid,major,minor,open,suspended,events"
        shown = tool("dmsetup", "info", "-c", "--noheadings", "--separator", ": ", "-o", columns)
        lines = [*shown.splitlines(), *tool("dmsetup", "table").splitlines()]
        columns = "NAME,BACK-FILE,BACK-INO,AUTOCLEAR,RO"
        lines += tool(
            "losetup", "--list", "--raw", "--noheadings", "--output", columns
        ).splitlines()
        names = {*(f"{name}:" for name in self._devices), *self._loops}
        return sorted(line for line in lines if line.split(" ")[0] in names)

    def remove_all(self) -> None:
        for name in reversed(self._devices.copy()):
            self.remove(name)
        for loop in self._loops:
            tool("losetup", "-d", loop)


@pytest.fixture
def strangers(host: Host) -> Iterator[Strangers]:
    made = Strangers(host)
    yield made
    made.remove_all()


def test_nothing_that_byre_does_touches_a_foreign_device(host: Host, strangers: Strangers) -> None:
    base = host.make_ext4()
    loop = strangers.attach(host.make_file("other", MIB))
    strangers.attach(base)
    strangers.attach(base, "--read-only")
    tables = ("0 8 zero", "0 2048 zero", f"0 2048 linear {loop} 0")
    for (name, uuid), table in zip(CONFUSING, tables, strict=True):
        strangers.create(name, table, uuid)
    strangers.create(f"{host.prefix}sb-11", "0 8 zero")
    before = strangers.picture()

    host.live("sb-1", base)
    for words in (
        ("pause", "sb-1", "--wait"),
        ("run", "--once"),
        ("restore", "sb-1", "--wait"),
        ("orphans",),
        ("remove", "sb-1", "--wait"),
        ("run", "--once"),
    ):
        host.cli(*words)
        assert before == strangers.picture(), words
    assert len(host.loops_on(base)) == 2
    host.assert_proved()


def test_a_running_reconciler_starts_works_and_ends_without_touching_them(
    host: Host, strangers: Strangers
) -> None:
    base = host.make_ext4()
    strangers.attach(base)
    strangers.create("byre-x", "0 8 zero")
    before = strangers.picture()
    daemon = host.cli.daemon()
    host.live("sb-1", base)
    host.cli("remove", "sb-1", "--wait")
    assert daemon.terminate() == 0
    assert before == strangers.picture()


@pytest.mark.parametrize("uuid", ["", "BYRE-x", "BYRE-0123456789abcdef0123456789abcdef-1"])
def test_a_disk_whose_name_is_taken_is_refused_leaves_nothing_and_comes_when_it_is_free(
    host: Host, strangers: Strangers, uuid: str
) -> None:
    base, name = host.make_ext4(), f"{host.prefix}sb-1"
    strangers.create(name, "0 8 zero", uuid)
    before = strangers.picture()
    answer = host.cli("create", "sb-1", "--base", base, "--wait", expect=4)
    assert name in answer.err
    assert before == strangers.picture()
    assert host.loops() == []
    assert host.cows() == []

    strangers.remove(name)
    host.cli("run", "--once")
    assert host.record("sb-1").state == "snapshotted"
    assert str(host.device("sb-1")) == host.record("sb-1").device


def test_a_disk_whose_link_is_occupied_is_refused_leaves_nothing_and_comes_when_it_is_free(
    host: Host,
) -> None:
    base, link = host.make_ext4(), host.folder / "links" / "sb-1"
    link.parent.mkdir()
    link.write_text("somebody's")
    answer = host.cli("create", "sb-1", "--base", base, "--link", link, "--wait", expect=4)
    assert str(link) in answer.err
    assert link.read_text() == "somebody's"
    host.assert_nothing_left()

    daemon = host.cli.daemon()
    link.unlink()
    host.until_settled("sb-1", "snapshotted")
    assert link.resolve() == host.device("sb-1").resolve()
    assert daemon.terminate() == 0


def test_a_restore_whose_name_was_taken_meanwhile_is_refused_and_keeps_the_data(
    host: Host, strangers: Strangers
) -> None:
    base, name = host.make_ext4(), f"{host.prefix}sb-1"
    host.live("sb-1", base)
    host.cli("pause", "sb-1", "--wait")
    strangers.create(name, "0 8 zero")
    before = strangers.picture()
    host.cli("restore", "sb-1", "--wait", expect=4)
    host.cli("run", "--once", expect=4)
    assert before == strangers.picture()
    assert host.loops() == []
    assert len(host.cows()) == 1

    daemon = host.cli.daemon()
    strangers.remove(name)
    host.until_settled("sb-1", "restored")
    assert daemon.terminate() == 0


def test_a_disk_whose_name_was_taken_meanwhile_is_removed_without_the_stranger(
    host: Host, strangers: Strangers
) -> None:
    host.live("sb-1", host.make_ext4())
    host.cli("pause", "sb-1", "--wait")
    strangers.create(f"{host.prefix}sb-1", "0 8 zero")
    before = strangers.picture()
    host.cli("remove", "sb-1", "--wait")
    assert before == strangers.picture()
    assert host.cows() == []

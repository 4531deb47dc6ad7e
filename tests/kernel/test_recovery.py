"""A process killed at any moment leaves nothing that the next one does not finish or take back.

Two kinds of moments: before the first change to the kernel and after every single one (all of
them, one after the other), and random ones from outside.
"""

from __future__ import annotations

import itertools
import random
import signal
import time
from pathlib import Path

import pytest

from tests.kernel.bomb import Bomb
from tests.kernel.cli import Child
from tests.kernel.host import Host, digest

pytestmark = pytest.mark.kernel

CHANGES_MAX = 40
MANY = 6
ROUNDS = 12
SEED = 20261121


class Life:
    """One disk that goes round and round, with the data it must keep."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.base = host.make_ext4()
        self.link = host.folder / "links" / "sb-1"
        self.whole = ""
        self.killed = 0

    def words(self, command: str) -> tuple[object, ...]:
        if command == "create":
            return ("create", "sb-1", "--base", self.base, "--link", self.link, "--wait")
        return (command, "sb-1", "--wait")

    def do(self, *commands: str) -> None:
        for command in commands:
            self.host.cli(*self.words(command))

    def check(self, command: str, child: Child) -> None:
        """After a kill: one pass must bring the disk to where the command leads."""
        self.killed += child.wait() == -signal.SIGKILL
        host = self.host
        host.cli("run", "--once")
        if host.cli("replay", "--verify", "-o", "json").json["disks"] == 0:
            return  # killed before it had recorded anything
        desired = host.record("sb-1").desired.value
        if desired == "live":
            assert len(host.loops()) == 2
            assert [host.device("sb-1").name] == host.dm_names()
            assert host.device("sb-1").resolve() == self.link.resolve()
        else:
            host.assert_nothing_in_kernel()
            assert not self.link.parent.exists()
        assert (0 if desired == "removed" else 1) == len(host.cows())
        seq = host.last_seq()
        host.cli("run", "--once")
        assert seq == host.last_seq(), command


READY = {
    "create": ((), ("remove",)),
    "pause": (("create",), ("restore",)),
    "restore": (("create", "pause"), ("pause",)),
    "remove": (("create",), ("create",)),
}
"""What brings a disk to where a command begins: the first time, and from where the command ends."""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("command", ["create", "pause", "restore", "remove"])
def test_a_command_killed_after_any_change_is_finished_by_the_next_pass(
    host: Host, command: str
) -> None:
    life = Life(host)
    first, again = READY[command]
    host.cli("run", "--once")
    for changes in itertools.count():
        life.do(*(again if changes else first))
        child = host.cli.fork(*life.words(command), before=Bomb(changes).lay)
        life.check(command, child)
        if child.wait() == 0:
            break  # it came through: it makes no more changes
        assert changes < CHANGES_MAX
    host.cli("log", "verify")
    assert life.killed == changes
    assert life.killed >= 5


@pytest.mark.timeout(240)
def test_commands_killed_at_random_moments_lose_nothing(host: Host) -> None:
    life, chance = Life(host), random.Random(SEED)  # noqa: S311 - not a secret
    host.cli("run", "--once")
    data = Path()
    for round_ in range(ROUNDS):
        command = ("create", "pause", "restore", "remove")[round_ % 4]
        child = host.cli.fork(*life.words(command))
        time.sleep(chance.uniform(0.0, 0.6))
        child.kill()
        life.check(command, child)
        life.do(command)
        data = host.device("sb-1")
        if command == "create":
            data.write_bytes(chance.randbytes(1 << 20))
            life.whole = digest(data)
        elif command == "restore":
            assert life.whole == digest(data)
    host.assert_nothing_left()
    host.assert_proved()


def declare_many(host: Host) -> list[str]:
    """Declare some disks and leave the work to whoever comes."""
    base, names = host.make_ext4(), [f"sb-{number}" for number in range(MANY)]
    for name in names:
        host.cli("create", name, "--base", base, "--link", host.folder / "links" / name)
    return names


def assert_all_live(host: Host, names: list[str]) -> None:
    assert [host.device(name).name for name in names] == sorted(host.dm_names())
    assert len(host.loops()) == len(names) + 1
    assert len(host.cows()) == len(names)
    host.assert_proved()


@pytest.mark.parametrize("changes", [7, 19, 31])
def test_a_reconciler_killed_amid_many_disks_is_followed_by_one_that_finishes(
    host: Host, changes: int
) -> None:
    names = declare_many(host)
    child = host.cli.fork("run", before=Bomb(changes).lay)
    assert child.wait() == -signal.SIGKILL
    host.cli("run", "--once")
    assert_all_live(host, names)
    host.cli("remove", *names, "--wait")
    host.assert_nothing_left()


def test_a_reconciler_told_to_end_amid_many_disks_ends_between_two_transitions(host: Host) -> None:
    names = declare_many(host)
    daemon = host.cli.daemon()
    assert daemon.terminate() == 0
    assert [host.record(name).in_flight for name in names] == [None] * MANY
    host.cli("run", "--once")
    assert_all_live(host, names)

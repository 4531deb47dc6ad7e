"""A sandbox that owns a part of its disk's path gets nothing into, or out of, another folder."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from reconciler.kernel import ioctl
from tests.kernel.host import Host

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

pytestmark = pytest.mark.kernel

SANDBOX = 54321
ROUNDS = 12


class Jail:
    """A sandbox's own folder, with the disk's link in it, and a folder of somebody else's."""

    def __init__(self, host: Host) -> None:
        self.victim = host.folder / "victim"
        self.victim.mkdir(mode=0o700)
        self.folder = host.folder / "jail"
        self.folder.mkdir()
        os.chown(self.folder, SANDBOX, SANDBOX)
        self.run = self.folder / "run"
        self.link = self.run / "rootfs.link"

    def swap_run_for_a_symlink(self) -> None:
        """Put a symlink to the victim in place of the folder, as the sandbox may."""
        self.run.rename(self.folder / "aside")
        self.run.symlink_to(self.victim)

    def swap_back(self) -> None:
        self.run.unlink()
        (self.folder / "aside").rename(self.run)

    def assert_victim_untouched(self) -> None:
        assert list(self.victim.iterdir()) == []


@pytest.fixture
def jail(host: Host) -> Jail:
    return Jail(host)


def swap_for_ever(folder: int, began: Event, end: Event) -> None:
    """Exchange the folder for a symlink and back, as the sandbox's user."""
    os.setgroups([])
    os.setresgid(SANDBOX, SANDBOX, SANDBOX)
    os.setresuid(SANDBOX, SANDBOX, SANDBOX)
    while not end.is_set():
        ioctl.exchange("run", "trap", folder=folder)
        began.set()


@contextmanager
def attacked(jail: Jail) -> Iterator[None]:
    """Have the sandbox swap its folder all the time."""
    fork = multiprocessing.get_context("fork")
    began, end = fork.Event(), fork.Event()
    # Opened here, as a chrooted sandbox has its folder open: the way to it is the test's own.
    with ioctl.opened(jail.folder, os.O_PATH | os.O_DIRECTORY) as folder:
        attacker = fork.Process(target=swap_for_ever, args=(folder, began, end))
        attacker.start()
        try:
            assert began.wait(60)
            yield
            assert attacker.is_alive(), "it was no attack"
        finally:
            end.set()
            attacker.join(60)


def test_a_link_in_a_sandboxes_own_folder_comes_and_goes(host: Host, jail: Jail) -> None:
    host.live("sb-1", host.make_ext4(), "--link", jail.link)
    assert jail.link.resolve() == host.device("sb-1").resolve()
    host.cli("remove", "sb-1", "--wait")
    host.assert_nothing_left()
    assert list(jail.folder.iterdir()) == []


def test_a_swapped_folder_holds_up_no_pause_and_stops_a_restore(host: Host, jail: Jail) -> None:
    host.live("sb-1", host.make_ext4(), "--link", jail.link)
    jail.swap_run_for_a_symlink()
    host.cli("pause", "sb-1", "--wait")
    host.assert_nothing_in_kernel()
    answer = host.cli("restore", "sb-1", "--wait", expect=4)
    assert f"{jail.run} is a symlink in a folder that another user can write to" in answer.err
    failure = host.record("sb-1").failure
    assert failure is not None
    assert (failure.kind, failure.consequence) == ("unsafe-path", "permanent")
    jail.assert_victim_untouched()
    (jail.folder / "aside" / jail.link.name).unlink()
    jail.swap_back()
    host.cli("run", "--once")
    assert host.is_settled("sb-1", "restored")
    assert jail.link.resolve() == host.device("sb-1").resolve()
    host.cli("remove", "sb-1", "--wait")
    host.assert_nothing_left()
    host.assert_proved()


def test_a_sandbox_that_swaps_all_the_time_leads_nothing_elsewhere(host: Host, jail: Jail) -> None:
    base = host.make_ext4()
    jail.run.mkdir()
    (jail.folder / "trap").symlink_to(jail.victim)
    for path in (jail.run, jail.folder / "trap"):
        os.chown(path, SANDBOX, SANDBOX, follow_symlinks=False)
    with attacked(jail):
        host.cli("create", "sb-1", "--base", base, "--link", jail.link, "--wait", expect=None)
        for command in ("pause", "restore") * ROUNDS:
            host.cli("retry", "sb-1")
            host.cli(command, "sb-1", "--wait", "--timeout", "30", expect=None)
            jail.assert_victim_untouched()
        host.cli("remove", "sb-1", "--wait")
    jail.assert_victim_untouched()
    host.assert_nothing_left()
    host.assert_proved()


def test_a_root_that_a_sandbox_can_reach_into_is_refused_until_it_is_closed(
    host: Host, jail: Jail
) -> None:
    base = host.make_ext4()
    host.live("sb-1", base)
    host.root.chmod(0o777)
    for words in (("pause", "sb-1"), ("run", "--once"), ("create", "sb-2", "--base", base)):
        assert f"chmod go-w {host.root}" in host.cli(*words, expect=4).err
    assert host.cli("get", "sb-1", "-o", "json").json[0]["state"] == "snapshotted"
    host.root.chmod(0o700)
    (host.root / "cow").rename(host.root / "kept")
    (host.root / "cow").symlink_to(jail.folder)
    answer = host.cli("create", "sb-2", "--base", base, "--wait", expect=4)
    assert "another user can replace what byre keeps there" in answer.err
    assert list(jail.folder.iterdir()) == []
    (host.root / "cow").unlink()
    (host.root / "cow").symlink_to("kept")  # the administrator's own, to a folder of his own
    host.cli("retry", "sb-2", "--wait")
    host.cli("remove", "sb-1", "sb-2", "--wait")
    host.assert_nothing_left()


def test_a_base_that_became_a_pipe_is_refused_and_nobody_waits_for_it(host: Host) -> None:
    base = host.make_ext4()
    host.live("sb-1", base)
    host.cli("pause", "sb-1", "--wait")
    base.rename(base.with_suffix(".kept"))
    os.mkfifo(base)
    assert "has changed" in host.cli("restore", "sb-1", "--wait", expect=4).err
    base.unlink()
    base.symlink_to(base.with_suffix(".kept"))  # the pinned file, by another way
    host.cli("run", "--once")
    assert host.is_settled("sb-1", "restored")
    host.cli("remove", "sb-1", "--wait")
    host.assert_nothing_left()

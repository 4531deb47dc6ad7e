"""A link that goes from one live disk to another, as another process sees it."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.host import MIB, Host

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

pytestmark = pytest.mark.kernel


def watch(link: Path, ready: Event, enough: Event, answer: Connection) -> None:
    """Follow the path over and over, and tell which device each look found; -1 for none."""
    found: list[int] = []
    while not enough.is_set():
        try:
            number = link.stat().st_rdev
        except OSError:
            number = -1
        if not found or found[-1] != number:
            found.append(number)
        ready.set()
    answer.send(found)


def test_whoever_opens_the_path_finds_the_one_disk_or_the_other(host: Host) -> None:
    base, link = host.make_file("base", MIB), host.folder / "vm" / "rootfs.link"
    first = host.live("sb-1", base, "--link", link)
    second = host.live("sb-2", base)
    numbers = [first.stat().st_rdev, second.stat().st_rdev]
    fork = multiprocessing.get_context("fork")
    ready, enough = fork.Event(), fork.Event()
    ours, its = fork.Pipe()
    process = fork.Process(target=watch, args=(link, ready, enough, its))
    process.start()
    try:
        assert ready.wait(60)
        with first.open("rb") as held:
            host.cli("link", "sb-2", "--from", "sb-1", "--wait")
            assert os.fstat(held.fileno()).st_rdev == numbers[0]
    finally:
        enough.set()
        assert ours.poll(60)
        seen = ours.recv()
        process.join(60)
    assert seen in (numbers, numbers[:1])  # the last look may be of before the turn
    assert link.stat().st_rdev == numbers[1]
    # A machine's saved state has the path in it, and finds another device there after a restore.
    host.cli("pause", "sb-1", "--wait")
    host.cli("pause", "sb-2", "--wait")
    assert not os.path.lexists(link)
    host.cli("link", "sb-1", "--from", "sb-2")
    host.cli("restore", "sb-1", "--wait")
    assert link.stat().st_rdev == host.device("sb-1").stat().st_rdev
    host.cli("remove", "sb-1", "sb-2", "--wait")
    assert not link.parent.exists()

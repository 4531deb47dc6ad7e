"""Kills: `byre run` dies at random moments under load, is started again, and must lose nothing.

    python -m tests.torture.storm [--kills N] [--seed S]        (in the VM, as root)

Twenty disks on two bases are declared, paused, restored, removed and declared again while the
reconciler is killed by SIGKILL, half of the times from outside after a random while, half of them
right after a random change to the kernel. Some commands wait, and some of those are killed, too.
Meanwhile disks are written to: by this process, which holds their devices open over the kill, and
by two writers that never pause, one on a bare device and one in a mounted file system.

At the end everything is compared: the disks with what was asked, the host with the records, every
byte with what was written, the log with what it told. May be imported by the kernel tests.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from reconciler.api import Byre
from reconciler.config import Settings
from statemachine.events import Event
from statemachine.machine import LIVE
from tests.kernel.bomb import Bomb
from tests.kernel.cli import Child, until
from tests.kernel.host import MIB, Host, tool
from tests.torture import story, surplus
from tests.torture.contents import BLOCK, pattern
from tests.torture.sessions import Sessions
from tests.torture.verdict import assert_none, assert_same
from tests.torture.wishes import NAMES, Wishes
from tests.torture.writer import Writer

BASE_BYTES: Final = MIB
FILE_BYTES: Final = MIB // 4
KEEPERS: Final = ("keeper-bare", "keeper-mounted")
CHANGES_MAX: Final = 16
"""A bomb goes off after so many changes at the most: about two disks' worth."""
LIFE_MAX: Final = 3.0
"""How long a reconciler is left to live at the most, in times of what it takes to start."""
COMMANDS_MAX: Final = 5
SETTLE_S: Final = 240.0
_READY: Final = "reconciler started"
_BUSY: Final = "another reconciler"


@attrs.frozen(kw_only=True)
class Figures:
    """What a storm did, and what it found."""

    kills: int
    intents_resumed: int
    commands_killed: int
    disks: int
    generations: int
    transitions: int
    promises: int
    writes: int
    bytes_checked: int
    lost: int = 0
    leaked: int = 0

    def __str__(self) -> str:
        """Print one figure a line."""
        return "\n".join(f"{name}: {value}" for name, value in attrs.asdict(self).items())


class Storm:
    """One storm on a host of its own.

    Args:
        host: with nothing on it.
        seed: the same seed asks for the same things; the kernel's timing remains its own.
    """

    def __init__(self, host: Host, seed: int) -> None:
        self._host = host
        self._chance = random.Random(seed)  # noqa: S311 - not a secret
        bases = make_bases(host)
        self._sessions = Sessions(bases, self._chance)
        self._wishes = Wishes(host, list(bases), self._chance, self._sessions.close_all)
        self._daemons: list[Child] = []
        self._kills = 0
        self._start_s = 0.0

    def run(self, kills: int) -> Figures:
        """Kill so often, converge, and check everything.

        Raises:
            AssertionError: something was lost, leaked, or is not explained; it is named.
        """
        with self._keepers() as keepers:
            there = [self._host.life_of(name) for name in KEEPERS]
            self._first_round()
            while self._kills < kills:
                self._round()
                for keeper in keepers:
                    keeper.until_it_writes_on()
            self._converge()
            now = [self._host.life_of(name) for name in KEEPERS]
            assert_same(now, there, "a disk in use has the device that it had")
        return self._verdict(sum(keeper.written for keeper in keepers))

    @contextlib.contextmanager
    def _keepers(self) -> Iterator[tuple[Writer, Writer]]:
        """Two disks that stay live, written to from the first kill to the last."""
        host, bases = self._host, self._sessions.bases
        bare, mounted = [host.live(name, base) for name, base in zip(KEEPERS, bases, strict=True)]
        with host.mounted(mounted) as at:
            file, before = at / "data", pattern("file", FILE_BYTES // BLOCK)
            file.write_bytes(before)
            tool("sync", "-f", at)
            under = next(iter(bases.values()))
            writers = Writer(bare, KEEPERS[0], under), Writer(file, KEEPERS[1], before)
            try:
                yield writers
                for writer, path in zip(writers, (bare, file), strict=True):
                    self._sessions.check_path(writer.stop(), path)
            finally:
                for writer in writers:
                    writer.kill()

    # --- one life of a reconciler ------------------------------------------------------------

    def _first_round(self) -> None:
        """Learn how fast this machine is; ask for all disks, and kill amid the first of them."""
        began_s = time.monotonic()
        self._start_for_good().kill()
        self._start_s = time.monotonic() - began_s
        with self._api() as byre:
            for name in NAMES:
                self._wishes.ask(byre, name)
        daemon = self._start(Bomb(self._chance.randint(1, CHANGES_MAX)))
        self._kills += daemon.wait(SETTLE_S) == -signal.SIGKILL

    def _round(self) -> None:
        """Ask for something, use disks, and have a reconciler die meanwhile."""
        self._wishes.reap()
        self._sessions.close_some()
        free = self._wishes.free()
        asked = self._chance.sample(free, k=min(len(free), self._chance.randint(1, COMMANDS_MAX)))
        waited_for = self._ask(asked)
        for name in waited_for:
            self._wishes.ask_and_wait(name)
        self._live_and_die()

    def _ask(self, names: list[str]) -> list[str]:
        """Ask something of most of these disks; return those whose command is to wait."""
        waited_for: list[str] = []
        with self._api() as byre:
            for name in names:
                session = self._sessions.opened.get(name)
                if session is None and self._chance.random() < 0.3:
                    waited_for.append(name)
                elif session is None:
                    self._wishes.ask(byre, name)
                elif self._chance.random() < 0.3:
                    self._wishes.ask(byre, name)  # it is in use, and waits until it is not
                    session.leaves = True
            usable = [n for n in self._wishes.free() if n not in waited_for]
            live = [name for name in usable if self._wishes.wanted.get(name) == "live"]
            self._sessions.open_some(byre, live)
        return waited_for

    def _live_and_die(self) -> None:
        """Start a reconciler, use disks meanwhile, and have it killed."""
        bomb = Bomb(self._chance.randint(1, CHANGES_MAX)) if self._chance.random() < 0.5 else None
        share = 1.0 if bomb else self._chance.random()
        daemon = self._start(bomb)
        ends_s = time.monotonic() + share * LIFE_MAX * self._start_s
        if self._chance.random() < 0.2:
            self._wishes.kill_one()
        while time.monotonic() < ends_s and daemon.is_alive:
            self._sessions.write_once()
        self._kills += daemon.kill() == -signal.SIGKILL
        assert "Traceback" not in daemon.output, daemon.output

    def _start(self, bomb: Bomb | None = None) -> Child:
        """Start a reconciler; one that finds a waiting command at work on the root ends at once."""

        def before() -> None:
            self._sessions.close_all()
            if bomb is not None:
                bomb.lay()

        daemon = self._host.cli.fork("run", "--resync", "600", before=before)
        self._daemons.append(daemon)
        return daemon

    def _start_for_good(self) -> Child:
        """Start a reconciler, again until no waiting command has the root, and wait for it."""
        started = [self._start()]

        def is_ready() -> bool:
            if not started[-1].is_alive:
                assert _BUSY in started[-1].output, started[-1].output
                started.append(self._start())
            return _READY in started[-1].output

        until(is_ready, _READY, timeout_s=SETTLE_S)
        return started[-1]

    def _api(self) -> Byre:
        return Byre(self._host.root, settings=Settings(device_prefix=self._host.prefix))

    # --- the end -----------------------------------------------------------------------------

    def _converge(self) -> None:
        """Start once more, wait until all is as it was asked, and compare."""
        self._sessions.close_all()
        daemon = self._start_for_good()
        self._wishes.reap(to_the_end=True)
        with contextlib.suppress(AssertionError):  # the next line says which are not
            until(lambda: not self._wishes.unmet(), "all is as it was asked", timeout_s=SETTLE_S)
        assert_none(self._wishes.unmet(), "every disk is as it was asked")
        self._assert_nothing_is_leaked()
        self._assert_nothing_is_lost()
        assert daemon.terminate() == 0

    def _assert_nothing_is_leaked(self) -> None:
        host = self._host
        links = self._wishes.links
        place = surplus.Place(root=host.root, prefix=host.prefix, folder=host.folder, links=links)
        with Byre(host.root, read_only=True) as byre:
            wrong = surplus.compare(host.kernel, place, byre.log.records())
        assert_none(wrong, "the host is as recorded")
        assert_same(host.cli("orphans", "-o", "json").json, [], "there are no orphans")
        host.assert_proved()

    def _assert_nothing_is_lost(self) -> None:
        """Restore what is paused, and compare every byte of every disk."""
        kept = [name for name in NAMES if self._wishes.wanted.get(name) == "paused"]
        if kept:
            self._host.cli("restore", *kept, "--wait", "--timeout", f"{SETTLE_S:g}")
        with Byre(self._host.root, read_only=True) as byre:
            live = [r for r in byre.log.records() if r.state in LIVE and r.name not in KEEPERS]
        for record in live:
            self._sessions.check_path(self._sessions.contents_of(record), Path(record.device))

    def _verdict(self, written: int) -> Figures:
        """Check that the log explains all of it, take everything down, and sum up."""
        host = self._host
        with Byre(host.root, read_only=True) as byre:
            events, records = list(byre.log.events()), byre.log.records()
        self._assert_explained(events)
        host.cli("remove", *[r.name for r in records], "--wait", "--timeout", f"{SETTLE_S:g}")
        host.assert_nothing_left()
        assert not self._wishes.links.exists()
        host.assert_proved()
        return Figures(
            kills=self._kills,
            intents_resumed=story.resumed(events),
            commands_killed=self._wishes.killed,
            disks=len(records),
            generations=sum(record.generation for record in records),
            transitions=story.transitions(events),
            promises=len(self._wishes.promises),
            writes=written + self._sessions.writes,
            bytes_checked=self._sessions.bytes_checked,
        )

    def _assert_explained(self, events: list[Event]) -> None:
        ready = {daemon.pid for daemon in self._daemons if _READY in daemon.output}
        tried = {daemon.pid for daemon in self._daemons}
        assert_none(story.unexplained_intents(events), "every intent is explained")
        starts = story.untold_starts(events, ready=ready, tried=tried)
        assert_none(starts, "every start is told of, once")
        broken = story.broken_promises(events, self._wishes.promises)
        assert_none(broken, "what was told is in the log")


def make_bases(host: Host) -> dict[Path, bytes]:
    """Make a base with a pattern and one with a file system, and read them."""
    first = host.make_file("pattern.img", BASE_BYTES)
    first.write_bytes(pattern("pattern", BASE_BYTES // BLOCK))
    second = host.make_ext4("ext4.img", BASE_BYTES)
    return {path: path.read_bytes() for path in (first, second)}


def main() -> int:
    """Storm as the command line says; print the figures."""
    parser = argparse.ArgumentParser(prog="storm", description="Kill byre, and lose nothing.")
    parser.add_argument("--kills", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    arguments = parser.parse_args()
    host = Host()
    try:
        print(Storm(host, arguments.seed).run(arguments.kills))
    except AssertionError:
        keep_what_happened(host)
        raise
    finally:
        host.cleanup()
    return 0


def keep_what_happened(host: Host) -> None:
    """Save the log and the children's output from the guest, for whoever looks into it."""
    to = Path(os.environ.get("BYRE_VM_OUT", "/tmp")) / "storm"
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    for path in (*host.root.glob("byre.db*"), *host.folder.glob("child-*.txt")):
        shutil.copy(path, to)


if __name__ == "__main__":
    sys.exit(main())

"""Kills: `byre run` dies at random moments under load, is started again, and must lose nothing.

    python -m tests.torture.storm [--kills N] [--seed S]        (in the VM, as root)

Twenty disks on two bases are declared, paused, restored, removed and declared again while the
reconciler is killed by SIGKILL, half of the times from outside after a random while, half of them
right after a random change to the kernel. Some commands wait, some of those are killed as well.
Meanwhile disks are written to: by this process, which holds their devices open over the kill, and
by two writers that never pause, one on a bare device and one in a mounted file system.

At the end everything is compared: the disks with what was asked, the host with the records, every
byte with what was written, the log with what it told. May be imported by the kernel tests.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from reconciler.api import Byre
from reconciler.config import Settings
from reconciler.outcome import is_there
from statemachine.events import Event
from statemachine.machine import LIVE, Desired, Trigger
from statemachine.projection import Record
from tests.kernel.bomb import Bomb
from tests.kernel.cli import Child, until
from tests.kernel.host import MIB, Host, tool
from tests.torture import story, surplus
from tests.torture.contents import BLOCK, Contents, pattern, stamped
from tests.torture.direct import Direct, read_all
from tests.torture.writer import Writer

DISKS: Final = 20
BASE_BYTES: Final = MIB
FILE_BYTES: Final = MIB // 4
KEEPERS: Final = ("keeper-bare", "keeper-mounted")
CHANGES_MAX: Final = 16
"""A bomb goes off after so many changes at the most: about two disks' worth."""
LIFE_MAX: Final = 3.0
"""How long a reconciler is left to live at the most, in times of what it takes to start."""
COMMANDS_MAX: Final = 5
OPEN_MAX: Final = 3
SETTLE_S: Final = 180.0
_READY: Final = "reconciler started"
_BUSY: Final = "another reconciler"


@attrs.frozen(kw_only=True)
class Figures:
    """What a storm did, and what it found."""

    kills: int
    killed_in_a_transition: int
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


@attrs.define
class Session:
    """A device that this process holds open and writes to."""

    device: Direct
    contents: Contents
    leaves: bool = False
    """It is to be closed, as the disk was asked to go while it was in use."""


@attrs.define(eq=False)
class Storm:
    """One storm on a host of its own.

    Args:
        host: with nothing on it.
        seed: the same seed asks for the same things; the kernel's timing remains its own.
    """

    host: Host
    seed: int
    _chance: random.Random = attrs.field(init=False)
    _bases: dict[Path, bytes] = attrs.field(factory=dict, init=False)
    _wanted: dict[str, str] = attrs.field(factory=dict, init=False)
    _contents: dict[tuple[str, int], Contents] = attrs.field(factory=dict, init=False)
    _open: dict[str, Session] = attrs.field(factory=dict, init=False)
    _waiting: dict[str, Child] = attrs.field(factory=dict, init=False)
    _promises: list[story.Promise] = attrs.field(factory=list, init=False)
    _daemons: list[Child] = attrs.field(factory=list, init=False)
    _kills: int = attrs.field(default=0, init=False)
    _commands_killed: int = attrs.field(default=0, init=False)
    _stamp: int = attrs.field(default=0, init=False)
    _checked: int = attrs.field(default=0, init=False)
    _start_s: float = attrs.field(default=1.0, init=False)

    def run(self, kills: int) -> Figures:
        """Kill so often, converge, and check everything.

        Raises:
            AssertionError: something was lost, leaked, or is not explained; it is named.
        """
        self._chance = random.Random(self.seed)  # noqa: S311 - not a secret
        self._make_bases()
        with self._keepers() as keepers:
            there = {name: self.host.life_of(name) for name in KEEPERS}
            self._first_round()
            while self._kills < kills:
                self._round()
                for keeper in keepers:
                    keeper.until_it_writes_on()
            self._converge()
            assert there == {name: self.host.life_of(name) for name in KEEPERS}
        return self._verdict(sum(keeper.written for keeper in keepers))

    # --- the ground --------------------------------------------------------------------------

    def _make_bases(self) -> None:
        first = self.host.make_file("pattern.img", BASE_BYTES)
        first.write_bytes(pattern("pattern", BASE_BYTES // BLOCK))
        second = self.host.make_ext4("ext4.img", BASE_BYTES * 2)
        self._bases = {path: path.read_bytes() for path in (first, second)}

    @contextlib.contextmanager
    def _keepers(self) -> Iterator[tuple[Writer, Writer]]:
        """Two disks that stay live, written to from the first kill to the last."""
        for name, base in zip(KEEPERS, self._bases, strict=True):
            self.host.live(name, base)
            self._wanted[name] = "live"
        bare, mounted = map(self.host.device, KEEPERS)
        under = next(iter(self._bases.values()))
        with self.host.mounted(mounted) as at:
            file = at / "data"
            before = pattern("file", FILE_BYTES // BLOCK)
            file.write_bytes(before)
            tool("sync", "-f", at)
            writers = Writer(bare, KEEPERS[0], under), Writer(file, KEEPERS[1], before)
            try:
                yield writers
                for writer, path in zip(writers, (bare, file), strict=True):
                    self._check(writer.stop(), path)
            finally:
                for writer in writers:
                    writer.kill()

    # --- one life of a reconciler ------------------------------------------------------------

    def _first_round(self) -> None:
        """Learn how fast this machine is; ask for all disks, and kill amid the first of them."""
        began_s = time.monotonic()
        self._start_for_good().kill()
        self._start_s = time.monotonic() - began_s
        with Byre(self.host.root, settings=self._settings) as byre:
            for name in self._names():
                self._ask(byre, name)
        daemon = self._start(Bomb(self._chance.randint(1, CHANGES_MAX)))
        self._kills += daemon.wait(SETTLE_S) == -signal.SIGKILL

    def _round(self) -> None:
        self._reap()
        self._leave_devices()
        asked = self._chance.sample(self._free(), k=self._chance.randint(1, COMMANDS_MAX))
        later = [name for name in asked if self._chance.random() < 0.3 and name not in self._open]
        with Byre(self.host.root, settings=self._settings) as byre:
            for name in asked:
                if name not in later:
                    self._ask(byre, name)
            self._hold_devices(byre, later)
        for name in later:
            self._ask_and_wait(name)
        bomb = Bomb(self._chance.randint(1, CHANGES_MAX)) if self._chance.random() < 0.5 else None
        self._live_and_die(bomb)

    def _live_and_die(self, bomb: Bomb | None) -> None:
        """Start a reconciler, use disks meanwhile, and have it killed."""
        daemon = self._start(bomb)
        lives_s = self._start_s * (
            self._chance.uniform(0.0, LIFE_MAX) if bomb is None else LIFE_MAX
        )
        ends_s = time.monotonic() + lives_s
        self._maybe_kill_a_command()
        while time.monotonic() < ends_s and daemon.is_alive:
            self._write_once()
        self._kills += daemon.kill() == -signal.SIGKILL
        assert "Traceback" not in daemon.output, daemon.output

    def _start(self, bomb: Bomb | None) -> Child:
        """Start a reconciler; one that finds a waiting command at work on the root ends at once."""

        def before() -> None:
            self._let_go()
            if bomb is not None:
                bomb.lay()

        daemon = self.host.cli.fork("run", "--resync", "600", before=before)
        self._daemons.append(daemon)
        return daemon

    def _let_go(self) -> None:
        """Close the devices in a forked child: it would hold them open for as long as it lives."""
        for session in self._open.values():
            session.device.close()

    def _maybe_kill_a_command(self) -> None:
        if self._waiting and self._chance.random() < 0.2:
            name = self._chance.choice(sorted(self._waiting))
            self._commands_killed += self._waiting[name].kill() == -signal.SIGKILL

    # --- asking ------------------------------------------------------------------------------

    @property
    def _settings(self) -> Settings:
        return Settings(device_prefix=self.host.prefix)

    def _names(self) -> list[str]:
        return [f"sb-{number:02}" for number in range(1, DISKS + 1)]

    def _free(self) -> list[str]:
        """Return the disks that nobody waits for and that nobody asked to go while in use."""
        leaving = {name for name, session in self._open.items() if session.leaves}
        return [name for name in self._names() if name not in leaving | self._waiting.keys()]

    def _ask(self, byre: Byre, name: str) -> None:
        """Ask something new of a disk and go on; now and then of one that is in use."""
        session = self._open.get(name)
        if session is not None:
            if self._chance.random() < 0.7:
                return
            session.leaves = True
        command, wanted = self._next(name)
        if command == "create":
            base, link = self._place_of(name)
            byre.ensure(name, base=base, link=link, state=Desired(wanted))
        else:
            byre.command([name], Trigger(command))
        self._wanted[name] = wanted

    def _ask_and_wait(self, name: str) -> None:
        """Ask by a process of its own, which promises something when it ends with 0."""
        command, wanted = self._next(name)
        words: list[object] = [command, name, "--wait", "--timeout", f"{SETTLE_S:g}"]
        if command == "create":
            base, link = self._place_of(name)
            words += ["--base", base, "--desired", wanted]
            words += ["--link", link] if link else []
        self._waiting[name] = self.host.cli.fork(*words, before=self._let_go)
        self._wanted[name] = wanted

    def _next(self, name: str) -> tuple[str, str]:
        """Return a command, and what is desired by it."""
        before = self._wanted.get(name)
        if before == "live":
            ending = self._chance.choice(("pause", "pause", "remove"))
            return ending, "paused" if ending == "pause" else "removed"
        if before == "paused":
            going_on = self._chance.choice(("restore", "restore", "restore", "remove"))
            return going_on, "live" if going_on == "restore" else "removed"
        is_new = before is None
        return "create", "attached" if is_new and self._chance.random() < 0.2 else "live"

    def _place_of(self, name: str) -> tuple[Path, Path | None]:
        """Return the base of a disk, and every second one's link in a folder of some disks."""
        number = int(name.removeprefix("sb-"))
        base = list(self._bases)[number % 2]
        return base, None if number % 4 < 2 else self._links / f"group-{number % 5}" / name

    @property
    def _links(self) -> Path:
        return self.host.folder / "links"

    def _reap(self) -> None:
        """Take the answers of the commands that have ended."""
        for name, child in list(self._waiting.items()):
            if not child.is_alive:
                del self._waiting[name]
                self._note_answer(name, child)

    def _note_answer(self, name: str, child: Child) -> None:
        code = child.wait()
        if code == 0:
            self._promises.append(story.Promise(disk=name, pid=child.pid))
            return
        assert code == -signal.SIGKILL, f"{name}: {code}: {child.output}"
        # It may have died before it had said what it wants: the log knows.
        with Byre(self.host.root, read_only=True) as byre:
            record = byre.log.record(name)
        if record is None:
            del self._wanted[name]
        else:
            self._wanted[name] = record.desired.value

    # --- using -------------------------------------------------------------------------------

    def _hold_devices(self, byre: Byre, but_not: list[str]) -> None:
        """Open some disks that are live and stay so, and check what they hold first."""
        taken = {*self._waiting, *self._open, *but_not}
        live = [n for n, wanted in self._wanted.items() if wanted == "live" and n not in taken]
        names = [name for name in live if name not in KEEPERS]
        room = OPEN_MAX - len(self._open)
        for name in self._chance.sample(names, k=min(room, len(names))):
            record = byre.get(name)
            if is_there(record):
                contents = self._contents_of(record)
                device = Direct(self.host.device(name))
                contents.check(device.read_all())
                self._open[name] = Session(device, contents)

    def _contents_of(self, record: Record) -> Contents:
        key = (record.name, record.generation)
        if key not in self._contents:
            self._contents[key] = Contents(*key, self._bases[record.wanted.base])
        return self._contents[key]

    def _write_once(self) -> None:
        """Write one block to a disk that is open, and have it survive."""
        if not self._open:
            time.sleep(0.01)
            return
        session = self._open[self._chance.choice(sorted(self._open))]
        contents, self._stamp = session.contents, self._stamp + 1
        block = self._chance.randrange(len(contents.base) // BLOCK)
        contents.begin([block], self._stamp)
        data = stamped(contents.disk, contents.generation, block, self._stamp)
        session.device.write(block, data)
        session.device.flush()
        contents.flush()

    def _leave_devices(self, *, all_of_them: bool = False) -> None:
        for name, session in list(self._open.items()):
            if all_of_them or session.leaves or self._chance.random() < 0.4:
                session.device.close()
                del self._open[name]

    # --- the end -----------------------------------------------------------------------------

    def _converge(self) -> None:
        """Start once more, and wait until all is as it was asked; then make all of it live."""
        self._leave_devices(all_of_them=True)
        daemon = self._start_for_good()
        for name, child in self._waiting.items():
            child.wait(SETTLE_S)
            self._note_answer(name, child)
        self._waiting.clear()
        self._until_there()
        assert daemon.terminate() == 0
        self._assert_nothing_is_leaked()
        self._daemons.append(self.host.cli.daemon())
        self._assert_nothing_is_lost()
        assert self._daemons[-1].terminate() == 0

    def _start_for_good(self) -> Child:
        """Start a reconciler; a command that waits may hold the root, and then gives it back."""
        started: list[Child] = []

        def ready() -> bool:
            if not started or not started[-1].is_alive:
                assert not started or _BUSY in started[-1].output, started[-1].output
                started.append(self._start(None))
            return _READY in started[-1].output

        until(ready, _READY, timeout_s=SETTLE_S)
        return started[-1]

    def _until_there(self) -> None:
        with contextlib.suppress(AssertionError):  # the next line says which are missing
            until(lambda: not self._missing(), "all are as they were asked", timeout_s=SETTLE_S)
        assert self._missing() == []

    def _missing(self) -> list[str]:
        with Byre(self.host.root, read_only=True) as byre:
            records = [byre.get(name) for name in self._wanted]
        return [
            record.name
            for record in records
            if not is_there(record) or record.desired != self._wanted[record.name]
        ]

    def _assert_nothing_is_leaked(self) -> None:
        host = self.host
        place = surplus.Place(
            root=host.root, prefix=host.prefix, folder=host.folder, links=self._links
        )
        with Byre(host.root, read_only=True) as byre:
            assert surplus.compare(host.kernel, place, byre.log.records()) == []
        assert host.cli("orphans", "-o", "json").json == []
        host.assert_proved()

    def _assert_nothing_is_lost(self) -> None:
        """Restore what is paused, and compare every byte of every disk."""
        kept = [name for name in self._names() if self._wanted.get(name) == "paused"]
        if kept:
            self.host.cli("restore", *kept, "--wait", "--timeout", f"{SETTLE_S:g}")
        with Byre(self.host.root, read_only=True) as byre:
            live = [r for r in byre.log.records() if r.state in LIVE and r.name not in KEEPERS]
        for record in live:
            self._check(self._contents_of(record), self.host.device(record.name))

    def _check(self, contents: Contents, path: Path) -> None:
        data = read_all(path)
        contents.check(data)
        self._checked += len(data)

    def _verdict(self, written: int) -> Figures:
        """Check that the log explains all of it, take everything down, and sum up."""
        host = self.host
        with Byre(host.root, read_only=True) as byre:
            events, records = list(byre.log.events()), byre.log.records()
        self._assert_explained(events)
        host.cli("remove", *[r.name for r in records], "--wait", "--timeout", f"{SETTLE_S:g}")
        host.assert_nothing_left()
        assert not self._links.exists()
        host.assert_proved()
        return Figures(
            kills=self._kills,
            killed_in_a_transition=story.resumed(events),
            commands_killed=self._commands_killed,
            disks=len(records),
            generations=sum(record.generation for record in records),
            transitions=story.transitions(events),
            promises=len(self._promises),
            writes=written + self._stamp,
            bytes_checked=self._checked,
        )

    def _assert_explained(self, events: list[Event]) -> None:
        ready = {daemon.pid for daemon in self._daemons if _READY in daemon.output}
        tried = {daemon.pid for daemon in self._daemons}
        assert story.unexplained_intents(events) == []
        assert story.untold_starts(events, ready=ready, tried=tried) == []
        assert story.broken_promises(events, self._promises) == []


def main() -> int:
    """Storm as the command line says; print the figures."""
    parser = argparse.ArgumentParser(prog="storm", description="Kill byre, and lose nothing.")
    parser.add_argument("--kills", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    arguments = parser.parse_args()
    host = Host()
    try:
        print(Storm(host, arguments.seed).run(arguments.kills))
    finally:
        host.cleanup()
    return 0


if __name__ == "__main__":
    sys.exit(main())

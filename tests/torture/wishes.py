"""What a storm asks of its disks, what became of the commands, and what is desired by now.

Commands go through the Python API, or through a process of its own that waits and thereby promises
something. May be imported by the storm.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs

from reconciler.api import Byre
from reconciler.outcome import is_there
from statemachine.machine import Desired, Trigger
from tests.kernel.cli import Child
from tests.kernel.host import Host
from tests.torture.story import Promise

DISKS: Final = 20
NAMES: Final = tuple(f"sb-{number:02}" for number in range(1, DISKS + 1))
WAIT_S: Final = 240.0
"""How long a command waits at the most; the guest is slow, and the reconciler dies all the time."""


@attrs.define(eq=False)
class Wishes:
    """The wishes for all disks of one storm.

    Args:
        host: where.
        bases: every second disk is on the second one.
        chance: chooses.
        let_go: what a forked process does first.
    """

    host: Host
    bases: Sequence[Path]
    chance: random.Random
    let_go: Callable[[], None]
    wanted: dict[str, str] = attrs.field(factory=dict, init=False)
    """What each disk is desired to be, by the last command that was not killed."""
    waiting: dict[str, Child] = attrs.field(factory=dict, init=False)
    promises: list[Promise] = attrs.field(factory=list, init=False)
    killed: int = attrs.field(default=0, init=False)

    @property
    def links(self) -> Path:
        """The folder below which all links are."""
        return self.host.folder / "links"

    def free(self) -> list[str]:
        """Return the disks that no command waits for."""
        return [name for name in NAMES if name not in self.waiting]

    def ask(self, byre: Byre, name: str) -> None:
        """Ask something new of a disk and go on."""
        command, wanted = self._next(name)
        if command == "create":
            base, link = self._place_of(name)
            byre.ensure(name, base=base, link=link, state=Desired(wanted))
        else:
            byre.command([name], Trigger(command))
        self.wanted[name] = wanted

    def ask_and_wait(self, name: str) -> None:
        """Ask something new of a disk by a process that waits for it."""
        command, wanted = self._next(name)
        words: list[object] = [command, name, "--wait", "--timeout", f"{WAIT_S:g}"]
        if command == "create":
            base, link = self._place_of(name)
            words += ["--base", base, "--desired", wanted]
            words += ["--link", link] if link else []
        self.waiting[name] = self.host.cli.fork(*words, before=self.let_go)
        self.wanted[name] = wanted

    def kill_one(self) -> None:
        """Kill a command that waits, if there is one."""
        if self.waiting:
            name = self.chance.choice(sorted(self.waiting))
            self.killed += self.waiting[name].kill() == -signal.SIGKILL

    def reap(self, *, to_the_end: bool = False) -> None:
        """Take the answers of the commands that have ended, or of all once they have."""
        for name, child in list(self.waiting.items()):
            if to_the_end or not child.is_alive:
                del self.waiting[name]
                self._note_answer(name, child)

    def unmet(self) -> list[str]:
        """Return the disks that are not what was asked of them last, and how they are."""
        with Byre(self.host.root, read_only=True) as byre:
            records = [byre.get(name) for name in self.wanted]
        return [
            f"{record.name} is {record.state}, recorded as desired {record.desired}, asked to be "
            f"{self.wanted[record.name]}: {record.in_flight}, {record.failure}, {record.fault}"
            for record in records
            if not is_there(record) or record.desired != self.wanted[record.name]
        ]

    def _next(self, name: str) -> tuple[str, str]:
        """Return a command, and what is desired by it."""
        before = self.wanted.get(name)
        if before == "live":
            ending = self.chance.choice(("pause", "pause", "remove"))
            return ending, "paused" if ending == "pause" else "removed"
        if before == "paused":
            going_on = self.chance.choice(("restore", "restore", "restore", "remove"))
            return going_on, "live" if going_on == "restore" else "removed"
        is_new = before is None
        return "create", "attached" if is_new and self.chance.random() < 0.2 else "live"

    def _place_of(self, name: str) -> tuple[Path, Path | None]:
        """Return the base of a disk, and every second one's link in a folder of some disks."""
        number = NAMES.index(name)
        base = self.bases[number % 2]
        return base, None if number % 4 < 2 else self.links / f"group-{number % 5}" / name

    def _note_answer(self, name: str, child: Child) -> None:
        code = child.wait(2 * WAIT_S)
        if code == 0:
            self.promises.append(Promise(disk=name, pid=child.pid))
            return
        assert code == -signal.SIGKILL, f"{name}: {code}: {child.output}"
        # It may have died before it had said what it wants: the log knows.
        with Byre(self.host.root, read_only=True) as byre:
            record = byre.log.record(name)
        if record is None:
            del self.wanted[name]
        else:
            self.wanted[name] = record.desired.value

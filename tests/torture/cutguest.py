"""The guest's half of the power cut: check what the last cut left, then load until the next.

    python -m tests.torture.cutguest LEDGER SEED [--last]        (in the VM, as root)

The state root, the bases and the links lie on /dev/vda, which outlives the guest. What is
acknowledged here is told to the ledger on the host right after. With --last everything is taken
down in the end, and nothing may be left. `powercut` on the host starts this, and kills it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import attrs

from reconciler.api import Byre
from reconciler.config import Settings
from reconciler.kernel.linux import LinuxKernel
from reconciler.outcome import is_there
from statemachine.events import EventType
from statemachine.machine import LIVE, Desired, Trigger
from statemachine.record import Record
from tests.kernel.cli import Cli, until
from tests.kernel.host import MIB, tool
from tests.torture import story, surplus
from tests.torture.contents import BLOCK, pattern, stamped
from tests.torture.direct import Direct
from tests.torture.ledger import Ledger
from tests.torture.verdict import assert_none, assert_same

STATE: Final = Path("/tmp/byre-state")
PLACE: Final = surplus.Place(
    root=STATE / "root", prefix="byre-cut-", folder=STATE, links=STATE / "links"
)
BASES: Final = ("base-1", "base-2")
BASE_BLOCKS: Final = MIB // BLOCK
DISKS: Final = tuple(f"sb-{number}" for number in range(1, 9))
BURST_MAX: Final = 6
SETTLE_S: Final = 180.0


@attrs.define(eq=False)
class Guest:
    """One boot: the reconciler runs as a process of its own, and this one asks and writes."""

    byre: Byre
    ledger: Ledger
    chance: random.Random
    checked: int = 0

    # --- after a cut -------------------------------------------------------------------------

    def check(self) -> None:
        """Check everything that was ever told, once the reconciler has done its work."""
        records = self._settled()
        self._check_wishes(records)
        self._check_log()
        self._check_place()
        self._restore_all(records)
        for record in self.byre.log.records():
            if record.state in LIVE:
                self._check_data(record)

    def _settled(self) -> list[Record]:
        names = [record.name for record in self.byre.log.records()]
        self._wait(names)
        return self.byre.log.records()

    def _check_wishes(self, records: list[Record]) -> None:
        """What was acknowledged is desired still, or what was being asked when the power went."""
        desired = {record.name: record.desired.value for record in records}
        wrong = [
            f"{name} is to be {desired.get(name)}, not one of {allowed}"
            for name, allowed in self.ledger.wanted.items()
            if desired.get(name, "") not in allowed
        ]
        assert_none(wrong, "what was asked for is still wanted")
        for record in records:
            self._acknowledge(record.name)

    def _check_log(self) -> None:
        events = list(self.byre.log.events())
        assert_none(story.forgotten(events, self.ledger.told), "what was told is in the log")
        assert_none(story.unexplained_intents(events), "every intent is explained")
        booted = [event.boot_id for event in events if event.type == EventType.HOST_BOOTED]
        assert_same(sorted(set(booted)), sorted(booted), "a boot is told of once")
        seen = [boot for boot in booted if boot in self.ledger.boots]
        assert_same(seen, self.ledger.boots, "every boot is told of")
        assert_same(booted[-1], self.byre.kernel.boot_id(), "this boot is told of")

    def _check_place(self) -> None:
        """Nothing is there but what the records say: of this boot and of those before."""
        with contextlib.suppress(AssertionError):  # the next line says what is still wrong
            until(lambda: not self._surplus(), "the host is as recorded", timeout_s=SETTLE_S)
        assert_none(self._surplus(), "the host is as recorded")
        cli = Cli(PLACE.root, PLACE.prefix)
        assert_same(cli("orphans", "-o", "json").json, [], "there are no orphans")
        cli("log", "verify")
        cli("replay", "--verify")

    def _surplus(self) -> list[str]:
        """Compare; a paused disk is as it should be before its old link has been taken away."""
        return surplus.compare(self.byre.kernel, PLACE, self.byre.log.records())

    def _restore_all(self, records: list[Record]) -> None:
        names = [record.name for record in records if record.desired is Desired.PAUSED]
        for name in names:
            self.ledger.ask(name, "live")
            self.byre.command([name], Trigger.RESTORE)
        self._wait_for(*names)

    def _check_data(self, record: Record) -> None:
        base = record.wanted.base.name
        contents = self.ledger.contents(record.name, record.generation, base)
        with Direct(Path(record.device)) as device:
            data = device.read_all()
        self.ledger.found(contents, base, contents.check(data))
        self.checked += len(data)

    # --- load --------------------------------------------------------------------------------

    def load(self) -> NoReturn:
        """Ask and write at random until the power goes."""
        self.ledger.boot(self.byre.kernel.boot_id())
        if self.chance.random() < 0.5:
            hasten_writeback()
        while True:
            if self.chance.random() < 0.6:
                self._write(self.chance.choice(DISKS))
            else:
                self._ask(self.chance.choice(DISKS), waits=self.chance.random() < 0.7)

    def _write(self, name: str) -> None:
        """Write some blocks of a disk; mostly have them flushed, and tell so."""
        record = self.byre.log.record(name)
        if record is None or self.ledger.wanted[name] != ("live",) or not is_there(record):
            return
        base = record.wanted.base.name
        contents = self.ledger.contents(name, record.generation, base)
        blocks = self.chance.sample(range(BASE_BLOCKS), k=self.chance.randint(1, BURST_MAX))
        stamp = self.ledger.begin(contents, base, blocks)
        with Direct(Path(record.device)) as device:
            for block in blocks:
                device.write(block, stamped(name, record.generation, block, stamp))
            if self.chance.random() < 0.75:
                device.flush()
                self.ledger.flushed(contents, base)

    def _ask(self, name: str, *, waits: bool) -> None:
        before = self.ledger.wanted.get(name, ("",))[-1]
        self._declare(name, self._next(before))
        if waits:
            self._wait_for(name)
        else:
            self._acknowledge(name)

    def _next(self, before: str) -> Desired:
        if before == "live":
            return self.chance.choice((Desired.PAUSED, Desired.PAUSED, Desired.REMOVED))
        return Desired.LIVE

    def _declare(self, name: str, desired: Desired) -> None:
        before = self.byre.log.record(name)
        self.ledger.ask(name, desired.value)
        if before is None or before.desired is Desired.REMOVED:
            number = DISKS.index(name)
            link = PLACE.links / f"group-{number % 3}" / name if number % 2 else None
            self.byre.ensure(name, base=STATE / BASES[number % len(BASES)], link=link)
        else:
            trigger = {Desired.PAUSED: Trigger.PAUSE, Desired.REMOVED: Trigger.REMOVE}
            self.byre.command([name], trigger.get(desired, Trigger.RESTORE))

    def _wait_for(self, *names: str) -> None:
        self._wait(names)
        for name in names:
            self._acknowledge(name)

    def _wait(self, names: Sequence[str]) -> None:
        answers = self.byre.wait(names, timeout_s=SETTLE_S) if names else []
        wrong = [f"{each.record.name}: {each.message}" for each in answers if not each.is_there]
        assert_none(wrong, "every disk comes to where it should be")

    def _acknowledge(self, name: str) -> None:
        """Tell the host which event of this disk is the last that somebody was told of."""
        record = self.byre.get(name)
        [last] = self.byre.log.select("WHERE seq = ?", record.seq)
        self.ledger.acknowledge(name, record.desired.value, last.seq, last.hash)

    # --- the end -----------------------------------------------------------------------------

    def take_down(self) -> None:
        """Remove all disks: nothing may be left in the kernel or on the disk."""
        names = [record.name for record in self.byre.log.records()]
        self.byre.command(names, Trigger.REMOVE)
        self._wait_for(*names)
        self._check_place()
        left = surplus.look(self.byre.kernel, PLACE)
        assert_none([name for things in left.values() for name in things], "nothing is left")


def main() -> int:
    """Run one boot as the command line says."""
    parser = argparse.ArgumentParser(prog="cutguest", description="One boot of a power cut test.")
    parser.add_argument("ledger", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("--last", action="store_true")
    arguments = parser.parse_args()
    mount_state()
    ledger = Ledger.read(arguments.ledger, {name: pattern(name, BASE_BLOCKS) for name in BASES})
    cli = Cli(PLACE.root, PLACE.prefix)
    daemon = cli.daemon()
    settings = Settings(device_prefix=PLACE.prefix)
    with Byre(PLACE.root, settings=settings, kernel=LinuxKernel()) as byre:
        guest = Guest(byre, ledger, random.Random(arguments.seed))  # noqa: S311 - not a secret
        guest.check()
        assert daemon.is_alive, daemon.output
        print(f"cutguest: {guest.checked} bytes are what was written", flush=True)
        if not arguments.last:
            guest.load()
        guest.take_down()
        print(f"cutguest: {story.transitions(byre.log.events())} transitions in all", flush=True)
    assert daemon.terminate() == 0, daemon.output
    tool("umount", STATE)
    return 0


def hasten_writeback() -> None:
    """Have the kernel write out what nobody flushed as well, soon and in whatever order."""
    for name in ("dirty_expire_centisecs", "dirty_writeback_centisecs"):
        Path("/proc/sys/vm", name).write_text("20\n")


def mount_state() -> None:
    """Mount the disk that outlives the guest; make the bases the first time."""
    STATE.mkdir()
    until(Path("/dev/vda").exists, "the state's disk is there")
    tool("mount", "-t", "ext4", "/dev/vda", STATE)
    for output in STATE.glob("child-*.txt"):  # what the reconciler of the boot before said
        output.unlink()
    for name in BASES:
        base = STATE / name
        if not base.exists():
            base.with_suffix(".part").write_bytes(pattern(name, BASE_BLOCKS))
            os.sync()
            base.with_suffix(".part").rename(base)
    os.sync()


if __name__ == "__main__":
    sys.exit(main())

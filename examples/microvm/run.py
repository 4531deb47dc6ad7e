"""A microVM on a byre disk: it works, is put to sleep, wakes on another device, and is forked.

    python examples/microvm/run.py [--template DIR]

What happens is told as it happens; see README.md. All of it is in a temporary folder, but for the
template: a machine that was booted once, and that this one goes on from instead of booting.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import guest
from machine import PATIENCE_S, Machine

from reconciler import Byre
from reconciler.config import Settings
from statemachine.events import EventType
from statemachine.machine import Desired, Trigger
from statemachine.record import Record

PROGRAMS = ("qemu-system-x86_64", "mke2fs", "e2fsck", "debugfs", "byre")
PREFIX = "byre-example-vm-"
"""It keeps this example's devices apart from those of a real root."""
FORKS = ("vm-a", "vm-b")
MEMORY = "memory"
NUMBERS = 2000
AT_REST = "mount -o remount,ro /"
"""As before a power off: all is written, and the journal is empty."""
STARTED = EventType.RECONCILER_STARTED


BEGAN = time.monotonic()


def main() -> int:
    """Tell the story; 0 if it went as it should."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--template", type=Path, help="a folder; made if it is not there yet")
    parser.add_argument("--only-template", action="store_true", help="make that, and end")
    said = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if not guest.BUSYBOX.exists():
        missing.append(str(guest.BUSYBOX))
    if missing:
        print(f"missing: {', '.join(missing)}; see README.md", file=sys.stderr)
        return 2
    template = said.template and made_template(said.template.absolute())
    if not said.only_template:
        with tempfile.TemporaryDirectory(prefix="byre-example-") as name:
            Story(Path(name).resolve(), template).tell()
    return 0


def made_template(folder: Path) -> Path:
    """Boot a machine once and save its memory, if that was not done yet; returns the folder."""
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        parts = guest.make_parts(partial)
        # No byre here: this disk becomes the base of all disks that are made of the template.
        with (
            tempfile.TemporaryDirectory(prefix="byre-example-") as name,
            Machine(Path(name), parts, disk=parts.base) as machine,
        ):
            machine.save(partial / MEMORY)
        partial.rename(folder)
        say(f"the template is made: {folder}")
    return folder


class Story:
    """A root in a folder, the parts of a machine, and what happens to them."""

    def __init__(self, folder: Path, template: Path | None) -> None:
        self.folder = folder
        self.parts = guest.copied(template, folder) if template else guest.make_parts(folder)
        self.base = self.parts.base
        self.booted = template and template / MEMORY
        self.memory = folder / MEMORY

    def tell(self) -> None:
        """Run it from the beginning to the end."""
        root = self.folder / "root"
        with Byre(root, settings=Settings(device_prefix=PREFIX)) as byre, removing_all(byre):
            with byre_running(byre):
                before = self.work_and_sleep(byre)
                self.fork(byre)
            say("byre was ended")
            with byre_running(byre):
                say("byre was started again")
                self.wake(byre, before)
                self.run_forks(byre)

    def work_and_sleep(self, byre: Byre) -> Record:
        """Boot from a new disk, write, save the memory, and pause the disk."""
        byre.ensure("vm", base=self.base, link=self.link("vm"), reason="an example")
        disk = there(byre, "vm")
        say(f"vm: its disk is {disk.state} on {where(disk)}, driver {disk.driver}")
        with self.machine("vm", self.booted) as machine:
            say(f"vm: it runs; its root is {self.link('vm')}")
            machine.run("echo written before >/srv/note && sync")
            # Nobody asks for the numbers to be written, so some are in the memory alone.
            machine.run(f"seq 1 {NUMBERS} >/srv/numbers; echo in memory only >/run/memo")
            machine.save(self.memory)
        say(f"vm: its memory is saved, {self.memory.stat().st_size >> 20} MiB, and QEMU has ended")
        byre.command(["vm"], Trigger.PAUSE, reason="an example")
        there(byre, "vm")
        assert not self.link("vm").is_symlink(), "a paused disk has no link"
        say("vm: its disk is paused")
        return disk

    def fork(self, byre: Byre) -> None:
        """Make two disks of the paused one; they wait for their machines."""
        byre.fork("vm", FORKS, state=Desired.PAUSED, reason="an example")
        say(f"vm: forked into {' and '.join(FORKS)}")

    def wake(self, byre: Byre, before: Record) -> None:
        """Restore the disk on another device, and go on from the saved memory."""
        byre.ensure("other", base=self.base, reason="it takes the device that became free")
        there(byre, "other")
        byre.command(["vm"], Trigger.RESTORE, reason="an example")
        disk = there(byre, "vm")
        say(f"vm: its disk is {disk.state} on {where(disk)}; it was on {where(before)}")
        with self.machine("vm", self.memory) as machine:
            check_files(machine)
            machine.run(f"echo written after >/srv/later; {AT_REST}")
        say("vm: it went on where it was, and its files are there")
        device = self.link("vm")
        assert content(device, "/srv/later") == "written after"
        check_file_system("vm", device)

    def run_forks(self, byre: Byre) -> None:
        """Go on from the same memory twice, side by side, on a disk each."""
        with ExitStack() as both:
            machines: list[Machine] = []
            for name in FORKS:
                byre.ensure(name, base=self.base, link=self.link(name), reason="an example")
                there(byre, name)
                machines.append(both.enter_context(self.machine(name, self.memory)))
            for name, machine in zip(FORKS, machines, strict=True):
                check_files(machine)
                machine.run(f"echo {name} >/srv/own")
            for name, machine in zip(FORKS, machines, strict=True):
                assert machine.run(f"read -r own </srv/own; echo $own; {AT_REST}") == name
        for name in FORKS:
            assert content(self.link(name), "/srv/own") == name
            check_file_system(name, self.link(name))
        assert not content(self.link("vm"), "/srv/own")
        say(f"{' and '.join(FORKS)}: ran side by side from one memory, and differ")

    def link(self, name: str) -> Path:
        """Return the path that leads to a disk, whatever device it is on."""
        return self.folder / name / "rootfs.link"

    def machine(self, name: str, memory: Path | None = None) -> Machine:
        """Start a machine on a disk, from nothing or from a saved memory."""
        folder = self.folder / f"{name}.d"
        return Machine(folder, self.parts, disk=self.link(name), memory=memory)


def check_files(machine: Machine) -> None:
    """Check that a machine has what it wrote, on its disk and in its memory."""
    # In one line, by the shell alone: emulated twice over, each program takes seconds to start.
    told = machine.run("read -r note </srv/note; read -r memo </run/memo; echo $note, $memo")
    assert told == "written before, in memory only"


def check_file_system(name: str, device: Path) -> None:
    """Check a file system that nobody has mounted: whole, and its journal at rest."""
    checked = subprocess.run(
        ["e2fsck", "-fn", str(device)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
    numbers = content(device, "/srv/numbers").split()
    assert numbers == [str(number) for number in range(1, NUMBERS + 1)]
    say(f"{name}: e2fsck finds nothing wrong")


def content(device: Path, path: str) -> str:
    """Return what a file on a disk says, read from outside; "" if there is none."""
    read = ["debugfs", "-R", f"cat {path}", str(device)]
    done = subprocess.run(read, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@contextmanager
def byre_running(byre: Byre) -> Iterator[None]:
    """Have `byre run` at work on a root."""
    seen = byre.log.last_seq()
    words = ["byre", "--root", str(byre.root.path), "--device-prefix", PREFIX, "run"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not any(event.type == STARTED for event in byre.log.events(after=seen)):
            assert process.poll() is None, "byre run ended"
            assert time.monotonic() < deadline, "byre run did not start"
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)


@contextmanager
def removing_all(byre: Byre) -> Iterator[None]:
    """Remove all disks of a root in the end, however it ends."""
    try:
        yield
    finally:
        names = [record.name for record in byre.log.records()]
        byre.command(names, Trigger.REMOVE, reason="the example is over")
        byre.wait(names, timeout_s=PATIENCE_S)
        say(f"removed: {', '.join(sorted(names))}")


def there(byre: Byre, name: str) -> Record:
    """Wait until a disk is what was asked of it."""
    [waited] = byre.wait([name], timeout_s=PATIENCE_S)
    assert waited.is_there, f"{name}: {waited.message}; {waited.hint}"
    return waited.record


def where(disk: Record) -> str:
    """Return the device of a disk with its number; a plain file has none."""
    number = f" ({disk.device_number})" if disk.device_number else ""
    return f"{disk.device}{number}"


def say(text: str) -> None:
    """Tell what happened, and when."""
    print(f"{time.monotonic() - BEGAN:6.1f} s  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

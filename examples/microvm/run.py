"""A microVM on a byre disk: it works, is put to sleep, wakes on another device, and is forked.

    python examples/microvm/run.py

What happens is told as it happens; see README.md. All of it is in a temporary folder.
"""

from __future__ import annotations

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

from reconciler import Byre, carrying
from reconciler.config import Settings
from statemachine.events import EventType
from statemachine.machine import Trigger
from statemachine.projection import Record

PROGRAMS = ("qemu-system-x86_64", "mke2fs", "e2fsck", "debugfs", "byre")
PREFIX = "byre-example-vm-"
"""It keeps this example's devices apart from those of a real root."""
FORKS = ("vm-a", "vm-b")
AT_REST = "mount -o remount,ro /"
"""As before a power off: all is written, and the journal is empty."""
STARTED = EventType.RECONCILER_STARTED


def main() -> int:
    """Tell the story; 0 if it went as it should."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if not guest.BUSYBOX.exists():
        missing.append(str(guest.BUSYBOX))
    if missing:
        print(f"missing: {', '.join(missing)}; see README.md", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="byre-example-") as name:
        Story(Path(name).resolve()).tell()
    return 0


class Story:
    """A root in a folder, the parts of a machine, and what happens to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        image, modules = guest.find_kernel()
        self.kernel = guest.make_kernel(image, folder / "vmlinux")
        first_root = folder / "first-root.cpio"
        self.first_root = guest.make_first_root(modules, folder / "first-root", first_root)
        self.base = guest.make_image(folder / "image", folder / "base.ext4")
        self.memory = folder / "memory"

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
        began = time.monotonic()
        with self.machine("vm") as machine:
            say(f"vm: booted in {time.monotonic() - began:.0f} s; its root is {self.link('vm')}")
            machine.run("echo written before >/srv/note && sync")
            # Nobody asks for this one to be written, so some of it is in the memory alone.
            machine.run("seq 1 20000 >/srv/numbers")
            machine.run("echo in memory only >/run/memo")
            machine.save(self.memory)
        say(f"vm: its memory is saved, {self.memory.stat().st_size >> 20} MiB, and QEMU has ended")
        byre.command(["vm"], Trigger.PAUSE, reason="an example")
        there(byre, "vm")
        assert not self.link("vm").is_symlink(), "a paused disk has no link"
        say("vm: its disk is paused")
        return disk

    def fork(self, byre: Byre) -> None:
        """Make two disks of the paused one, each with a link of its own."""
        delta = self.folder / "vm.delta"
        carrying.export_delta(byre, "vm", delta)
        for name in FORKS:
            carrying.import_delta(byre, name, delta, str(self.base))
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
            machine.run("echo written after >/srv/later")
            machine.run(AT_REST)
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
                machine.run(f"echo {name} >/srv/own && sync")
            for name, machine in zip(FORKS, machines, strict=True):
                assert machine.run("cat /srv/own") == name
                machine.run(AT_REST)
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
        return Machine(
            self.folder / f"{name}.d",
            kernel=self.kernel,
            first_root=self.first_root,
            disk=self.link(name),
            memory=memory,
        )


def check_files(machine: Machine) -> None:
    """Check that a machine has what it wrote, on its disk and in its memory."""
    assert machine.run("cat /srv/note") == "written before"
    assert machine.run("cat /run/memo") == "in memory only"
    assert machine.run("wc -l </srv/numbers") == "20000"


def check_file_system(name: str, device: Path) -> None:
    """Check a file system that nobody has mounted: whole, and its journal at rest."""
    checked = subprocess.run(
        ["e2fsck", "-fn", str(device)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
    numbers = content(device, "/srv/numbers").split()
    assert numbers == [str(number) for number in range(1, 20001)]
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
    """Tell what happened."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())

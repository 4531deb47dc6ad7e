"""A test's own piece of the guest: a folder in RAM, a root, a device prefix, and what is on them.

Everything a test makes is known by the folder it lies in or by the prefix of its name, so it can
be listed, asserted to be gone, and cleaned up without touching anybody else's.
May be imported by the kernel tests.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.api import Byre
from statemachine.events import Event
from statemachine.observed import Loop
from statemachine.record import Record
from tests.contract.real_world import MAPPER, RealWorld
from tests.kernel.cli import Cli, until

MIB = 1 << 20
TOOL_TIMEOUT_S = 60


def tool(*words: object, code: int = 0) -> str:
    """Run a program of the host; its exit code must be `code`; returns what it printed."""
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=TOOL_TIMEOUT_S,
        check=False,
    )
    assert code == done.returncode, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def digest(path: Path) -> str:
    """Return the SHA-256 of a whole file or device."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Host(RealWorld):
    """A root with its command line, and eyes for all that it leaves in the kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.root = self.folder / "root"
        self.cli = Cli(self.root, self.prefix)
        self._mounts: list[Path] = []

    # --- making things -----------------------------------------------------------------------

    def make_ext4(self, name: str = "base.ext4", size: int = 8 * MIB) -> Path:
        """Make a base with an empty file system."""
        base = self.make_file(name, size)
        tool("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", base)
        return base

    def live(self, name: str, base: Path, *words: object) -> Path:
        """Create a live disk and return its device."""
        self.cli("create", name, "--base", base, "--wait", *words)
        return self.device(name)

    def device(self, name: str) -> Path:
        """Return the path of a disk's device, there or not."""
        return MAPPER / f"{self.prefix}{name}"

    @contextmanager
    def mounted(self, device: Path) -> Iterator[Path]:
        """Mount a device for a while."""
        at = self.folder / f"mount-{len(self._mounts)}"
        at.mkdir()
        tool("mount", device, at)
        self._mounts.append(at)
        try:
            yield at
        finally:
            self.umount(at)

    def umount(self, at: Path) -> None:
        """Unmount; once more is harmless."""
        if os.path.ismount(at):
            tool("umount", at)

    # --- what is there -----------------------------------------------------------------------

    def record(self, name: str) -> Record:
        """Return what the log says of a disk."""
        with Byre(self.root, read_only=True) as byre:
            return byre.get(name)

    def history(self, name: str) -> list[Event]:
        """Return a disk's events."""
        with Byre(self.root, read_only=True) as byre:
            return byre.history(name)

    def story(self, name: str, after: int = 0) -> list[str]:
        """Return a disk's events in short: "completed snapshot", "declared paused"."""
        return [_in_short(event) for event in self.history(name) if event.seq > after]

    def last_seq(self) -> int:
        """Return the number of the last event."""
        with Byre(self.root, read_only=True) as byre:
            return byre.log.last_seq()

    def types_after(self, seq: int) -> list[str]:
        """Return the types of all events after one, the host's too."""
        with Byre(self.root, read_only=True) as byre:
            return [event.type for event in byre.log.events(after=seq)]

    def is_settled(self, name: str, state: str) -> bool:
        """Tell whether a disk is in a state and nothing is in flight, failing or faulted."""
        record = self.record(name)
        idle = record.in_flight is None and record.failure is None and record.fault is None
        return idle and record.state == state

    def until_settled(self, name: str, state: str, *, timeout_s: float = 20.0) -> None:
        """Wait for that; somebody else does the work."""
        what = f"{name} is {state}"
        until(lambda: self.is_settled(name, state), what, timeout_s=timeout_s)

    def dm_names(self) -> list[str]:
        """Return the dm devices of this test."""
        return [line.name for line in self.kernel.dm_names() if line.name.startswith(self.prefix)]

    def loops(self) -> list[Loop]:
        """Return the loop devices on files of this test."""
        return [loop for loop in self.kernel.loops() if self._is_ours(loop)]

    def loops_on(self, path: Path) -> list[Loop]:
        """Return the loop devices on one file, whatever path they were made with."""
        file = self.kernel.identify(path, follow=True)
        assert file is not None, path
        return [loop for loop in self.loops() if loop.backs(file)]

    def nodes(self) -> list[str]:
        """Return what /dev/mapper has of this test."""
        return [n for n in self.kernel.list_folder(MAPPER) if n.startswith(self.prefix)]

    def cows(self) -> list[str]:
        """Return the files in the root's CoW folder."""
        return list(self.kernel.list_folder(self.root / "cow"))

    def kernel_side(self) -> dict[str, list[object]]:
        """Return all that the kernel has of this test, with what tells two lives apart."""
        devices = [self.kernel.dm(name) for name in self.dm_names()]
        return {
            "dm": [
                (d.name, d.uuid, d.device, d.table, d.suspended, d.event_nr) for d in devices if d
            ],
            "dm lives": [_diskseq(f"dm-{d.device.minor}") for d in devices if d],
            "loops": [(loop, _diskseq(f"loop{loop.number}")) for loop in self.loops()],
            "nodes": [(name, os.readlink(MAPPER / name)) for name in self.nodes()],  # noqa: PTH115
        }

    def life_of(self, name: str) -> list[object]:
        """Return what the kernel has of one live disk, with what tells two lives apart."""
        device = self.kernel.dm(self.device(name).name)
        assert device is not None, f"{name} has no device"
        table = (device.table, device.suspended, device.event_nr)
        return [device.uuid, device.device, table, _diskseq(f"dm-{device.device.minor}")]

    def assert_nothing_in_kernel(self) -> None:
        """Check that no device, no loop and no node of this test is left."""
        assert (self.dm_names(), self.loops(), self.nodes()) == ([], [], [])

    def assert_nothing_left(self) -> None:
        """Check that not even a CoW file is left."""
        self.assert_nothing_in_kernel()
        assert self.cows() == []

    def assert_proved(self) -> None:
        """Check the chain, the replay, and that the kernel is what the record says."""
        self.cli("log", "verify")
        self.cli("replay", "--verify")

    def cleanup(self) -> None:
        """End the children, unmount, and remove all that this test made."""
        self.cli.end_children()
        for at in self._mounts:
            self.umount(at)
        super().cleanup()


def _diskseq(name: str) -> str:
    return Path("/sys/block", name, "diskseq").read_text().strip()


def _in_short(event: Event) -> str:
    kind = event.type.partition(".")[2]
    if "trigger" in event.data:
        return f"{kind} {event.data['trigger']}"
    return f"{kind} {event.data['spec']['state']}" if "spec" in event.data else kind

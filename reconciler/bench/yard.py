"""The throw-away place of one measurement: a folder, a base image, a prefix, and clearing it all.

Everything that a measurement makes lies in the folder or has the prefix in its name, so it can be
found and taken away however the measurement ends: a failure, Ctrl-C, SIGTERM. Only SIGKILL leaves
something. May be imported by the package and tests.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from reconciler.bench import programs
from reconciler.bench.programs import Background
from reconciler.bench.stopwatch import insist, sleep_s
from reconciler.kernel.port import Kernel
from statemachine.errors import ActionError, ByreError
from statemachine.units import Bytes

PREFIX: Final = "byrebench"
BASE_BYTES: Final = Bytes(64 << 20)
_END_POLLS: Final = 600
_END_POLL_S: Final = 0.1
_UDEV: Final = Path("/run/udev/control")
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it


class Yard:
    """One measurement's own place.

    Args:
        kernel: this host's.
        parent: where the folder is made.
    """

    def __init__(self, kernel: Kernel, parent: Path) -> None:
        self.kernel = kernel
        self.folder = Path(tempfile.mkdtemp(prefix="byre-bench-", dir=parent)).resolve()
        self.prefix = f"{PREFIX}-{secrets.token_hex(3)}-"
        self.base = self.folder / "base.img"
        with self.base.open("xb") as file:
            file.truncate(BASE_BYTES.count)
        self._background: list[Background] = []
        self._in_memory: Path | None = None

    @property
    def in_memory(self) -> Path:
        """A folder in RAM where there is one: for a log whose fsyncs are not what is measured."""
        if self._in_memory is None:
            usable = os.access(_MEMORY, os.W_OK | os.X_OK)
            parent = _MEMORY if usable else self.folder
            self._in_memory = Path(tempfile.mkdtemp(prefix="byre-bench-", dir=parent))
        return self._in_memory

    def start(self, *words: str) -> Background:
        """Start a program that is ended with the yard at the latest."""
        started = Background(words)
        self._background.append(started)
        return started

    def settle(self) -> None:
        """Let udev finish what the last step gave it to do, so that the next one begins at rest."""
        if _UDEV.exists() and programs.find("udevadm"):
            programs.run("udevadm", "settle", "--timeout=120")

    def clear(self) -> None:
        """End what was started and take away all that is left; idempotent."""
        for each in self._background:
            end(each)
        if not self.kernel.capabilities().dm:
            self._remove_devices()
        self._detach_loops()
        for folder in (self.folder, self._in_memory):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _remove_devices(self) -> None:
        for line in self.kernel.dm_names():
            if line.name.startswith(self.prefix):
                with contextlib.suppress(ByreError):
                    insist(functools.partial(self.kernel.dm_remove, line.name, line.uuid))
        mapper = Path("/dev/mapper")
        for name in self.kernel.list_folder(mapper):
            if name.startswith(self.prefix):
                with contextlib.suppress(ByreError):
                    seen = self.kernel.read_link(mapper / name)
                    self.kernel.drop_link(mapper / name, seen.target)

    def _detach_loops(self) -> None:
        with contextlib.suppress(ActionError):
            for loop in self.kernel.loops():
                if loop.backing_path.startswith(f"{self.folder}/"):
                    with contextlib.suppress(ByreError):
                        insist(functools.partial(self.kernel.loop_detach, loop))


@contextlib.contextmanager
def yard(kernel: Kernel, parent: Path) -> Iterator[Yard]:
    """Give a yard for the length of a `with` block, and clear it at the end."""
    made = Yard(kernel, parent)
    try:
        yield made
    finally:
        made.clear()


def end(process: Background) -> None:
    """Have a program end: by SIGTERM, and by SIGKILL when that takes a minute."""
    process.signal(signal.SIGTERM)
    for _ in range(_END_POLLS):
        if not process.is_alive:
            return
        sleep_s(_END_POLL_S)
    process.signal(signal.SIGKILL)
    while process.is_alive:
        sleep_s(_END_POLL_S)


def written_bytes(pid: int) -> int:
    """Return how many bytes a process has caused to be written to disks; proc(5), /proc/PID/io."""
    text = Path(f"/proc/{pid}/io").read_text(encoding="ascii")
    fields = dict(line.split(": ") for line in text.splitlines())
    return int(fields["write_bytes"])


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has; proc(5), the second number of /proc/PID/statm."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")

"""The contract suite's world on this very kernel: real files, loops and dm devices.

Everything it makes lies in a folder of its own or carries a dm name prefix of its own, and
`cleanup` removes exactly that, whatever state a failed test left it in: it closes what the test
held open, lets a suspended device go on, and waits a while for udev to let go. Needs root, and
device-mapper for the dm part.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from reconciler.kernel.ioctl import LOOP_CLR_FD, call, opened
from reconciler.kernel.linux import LinuxKernel
from statemachine.errors import TransientError
from statemachine.observed import Loop

MAPPER = Path("/dev/mapper")
PATIENCE_S = 10.0
"""How long udev, under software emulation, may hold a device that the test is done with."""


class Handle:
    """A file or device that a test holds open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class RealWorld:
    """A `World` (see `world`) on `LinuxKernel`."""

    def __init__(self, parent: Path = Path("/dev/shm")) -> None:
        self.kernel = LinuxKernel()
        self.prefix = f"byre-test-{uuid.uuid4().hex[:8]}-"
        self.folder = Path(tempfile.mkdtemp(prefix=self.prefix, dir=parent)).resolve()
        self._handles: list[Handle] = []

    def make_file(self, name: str, size: int) -> Path:
        """Make a sparse file of `size` bytes in the world's folder."""
        path = self.folder / name
        with opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as descriptor:
            os.truncate(descriptor, size)
        return path

    def open(self, path: Path, *, write: bool = False) -> Handle:
        """Hold a file or device open until the handle or the world is closed."""
        handle = Handle(os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC))
        self._handles.append(handle)
        return handle

    def write(self, path: Path, offset: int, data: bytes) -> None:
        """Write through to the disk below."""
        with opened(path, os.O_RDWR) as descriptor:
            assert os.pwrite(descriptor, data, offset) == len(data)
            os.fsync(descriptor)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Read what is there now."""
        with opened(path, os.O_RDONLY) as descriptor:
            return os.pread(descriptor, length, offset)

    def remove_dm_by_hand(self, name: str) -> None:
        """Remove a device as an operator does, without byre."""
        assert name.startswith(self.prefix), name
        command = ["dmsetup", "remove", "--retry", name]
        subprocess.run(command, check=True, timeout=PATIENCE_S, capture_output=True)

    def detach_loop_by_hand(self, number: int) -> None:
        """Detach a loop as an operator does, without byre; one in use gets autoclear."""
        loop = self.kernel.loop(number)
        assert loop is not None
        assert self._is_ours(loop), loop
        with opened(Path(loop.path), os.O_RDONLY) as descriptor:
            call(descriptor, LOOP_CLR_FD)

    def cleanup(self) -> None:
        """Remove all that this world made, and nothing else."""
        for handle in self._handles:
            handle.close()
        # An origin goes after what is on it.
        for line in sorted(self.kernel.dm_names(), key=lambda line: ":" in line.name):
            if line.name.startswith(self.prefix):
                self._remove_dm(line.name, line.uuid)
        for loop in filter(self._is_ours, self.kernel.loops()):
            patiently(lambda loop=loop: self.kernel.loop_detach(loop))  # type: ignore[misc]
        for name in self.kernel.list_folder(MAPPER):
            if name.startswith(self.prefix) and (MAPPER / name).is_symlink():
                (MAPPER / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def _is_ours(self, loop: Loop) -> bool:
        return loop.backing_path.startswith(f"{self.folder}/")

    def _remove_dm(self, name: str, dm_uuid: str) -> None:
        device = self.kernel.dm(name)
        if device is None:
            return
        if device.suspended:
            self.kernel.dm_resume(dm_uuid)
        if dm_uuid:
            patiently(lambda: self.kernel.dm_remove(name, dm_uuid))
        else:
            self.remove_dm_by_hand(name)


def patiently(change: Callable[[], bool]) -> bool:
    """Make a change, again while something is busy, for ten seconds at most."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return change()
        except TransientError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)

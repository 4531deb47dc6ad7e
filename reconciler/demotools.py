"""What the demonstration needs of the host besides byre: an image, reading, writing, looking.

Nothing here is used to keep disks: mke2fs, mount and debugfs stand for what a user of a disk
does. Every program has a deadline. May be imported by demo and tests.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from reconciler.kernel.port import DmName, Kernel
from statemachine.errors import ByreError

BASE_BYTES: Final = 16 << 20
PROGRAM_S: Final = 30.0
_PACKAGE: Final = "e2fsprogs"
_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


class DemoFailed(ByreError):
    """A check of the demonstration did not hold, or something that it needs is missing."""


def make_base(path: Path) -> None:
    """Make a small ext4 file system in a new file."""
    with path.open("xb") as file:
        file.truncate(BASE_BYTES)
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "byre-demo", path)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Writer:
    """Puts a small file into a disk's file system and reads it back.

    By a mount where that is permitted, else by debugfs, which writes to the image itself.

    Args:
        folder: for the mount point and what is copied.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.by_mount = os.geteuid() == 0

    def write(self, device: str, text: str) -> None:
        """Write the file /hello of the file system on a device or in a plain file."""
        source = self._folder / "hello"
        source.write_text(text)
        with self._mounted(device) as point:
            if point is not None:
                shutil.copyfile(source, point / "hello")
                return
        _debugfs(device, f"write {source} hello", write=True)
        _sync(device)

    def read(self, device: str) -> str:
        """Read the file /hello back; "" if it is not there."""
        with self._mounted(device) as point:
            if point is not None:
                hello = point / "hello"
                return hello.read_text() if hello.exists() else ""
        return _debugfs(device, "cat hello", write=False)

    @contextlib.contextmanager
    def _mounted(self, device: str) -> Iterator[Path | None]:
        """Mount a device for the length of a `with` block; None where that may not be."""
        point = self._folder / "mnt"
        point.mkdir(exist_ok=True)
        if not (self.by_mount and _is_device(device) and self._mount(device, point)):
            self.by_mount = False
            yield None
            return
        try:
            yield point
        finally:
            _run("umount", point)

    def _mount(self, device: str, point: Path) -> bool:
        try:
            _run("mount", "-t", "ext4", device, point)
        except DemoFailed:
            return False  # a container without the privilege, or a kernel without ext4
        return True


def unmount(folder: Path) -> None:
    """Unmount what an interrupted `Writer` left."""
    point = folder / "mnt"
    if point.is_dir() and point.is_mount():
        _run("umount", point)


def dm_names(kernel: Kernel) -> tuple[DmName, ...]:
    """Return all dm devices; none where device-mapper may not be used, and so none was made."""
    return () if kernel.capabilities().dm else kernel.dm_names()


def leftovers(kernel: Kernel, folder: Path, prefix: str) -> list[str]:
    """Name everything of a demonstration that is still there; empty when nothing is.

    Args:
        kernel: is asked.
        folder: the demonstration's own: the files, and what loops would be on.
        prefix: of the names of its dm devices.
    """
    found = [f"dm device {line.name}" for line in dm_names(kernel) if line.name.startswith(prefix)]
    found += [
        f"{loop.path} on {loop.backing_path}"
        for loop in kernel.loops()
        if loop.backing_path.startswith(f"{folder}/")
    ]
    mapper = Path("/dev/mapper")
    found += [f"{mapper / n}" for n in kernel.list_folder(mapper) if n.startswith(prefix)]
    for place in (folder / "root" / "cow", folder / "links"):
        found += [f"{place / name}" for name in kernel.list_folder(place)]
    return found


def _is_device(path: str) -> bool:
    return stat.S_ISBLK(os.stat(path).st_mode)  # noqa: PTH116 - a device's path is text


def _sync(device: str) -> None:
    """Have what debugfs wrote on the disk: dm devices and loops have caches of their own."""
    descriptor = os.open(device, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _debugfs(device: str, request: str, *, write: bool) -> str:
    return _run("debugfs", *(["-w"] if write else []), "-R", request, device)


def _run(program: str, *arguments: str | Path) -> str:
    """Run a program to its end; returns what it printed.

    Raises:
        DemoFailed: it is not installed, fails, or takes longer than PROGRAM_S.
    """
    found = shutil.which(program, path=_PATH)
    if found is None:
        package = "mount" if "mount" in program else _PACKAGE
        hint = f"it is in the Debian package {package}: apt-get install {package}"
        raise DemoFailed(f"{program} is missing", hint=hint)
    command = [found, *map(str, arguments)]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, our own paths
            command, capture_output=True, text=True, timeout=PROGRAM_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DemoFailed(f"{program} did not end within {PROGRAM_S:g} s") from error
    if done.returncode != 0:
        raise DemoFailed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout

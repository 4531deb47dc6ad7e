"""Who keeps a block device open: processes, mounts of every namespace, swap, devices above it.

For the one sentence that helps a person ("in use by process qemu (pid 41)"), never for a
decision: everything here is a look at one moment, and what may not be read is left out. It walks
/proc, so it is slow on a busy host (about 1 ms per 100 open files) and is asked only when
something is in the way. A process that maps the device and has closed it is not found.

Source: proc(5), Documentation/ABI/stable/sysfs-block (holders).
Privilege: root sees all processes, others their own.
May be imported by `linux`, the watcher for releases, and tests.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

import attrs

from statemachine.observed import DeviceNumber, Holder

_HOLDERS_MAX: Final = 64
"""Enough for a person; a base can have thousands of devices above it."""
_SPACES = re.compile(r"[ \t]")
_ESCAPED = re.compile(r"\\([0-7]{3})")


@attrs.frozen(kw_only=True)
class HolderFinder:
    """Looks through /proc and /sys; tests give folders of their own."""

    proc: Path
    sys: Path
    own: Callable[[], Collection[int]] = tuple
    """This process's descriptors that are no use of a device: of flushes that are going on."""

    def find(self, device: DeviceNumber) -> tuple[Holder, ...]:
        """Return who has the device open, at most 64, each once."""
        number = os.makedev(device.major, device.minor)
        found: dict[Holder, None] = {}
        above, loops = self._above(device), self._loops(number)
        for search in (above, loops, self._mounts(device), self._swaps(number)):
            found.update(dict.fromkeys(search))
        for holder in self._processes(number):
            if len(found) >= _HOLDERS_MAX:
                break
            found[holder] = None
        return tuple(found)[:_HOLDERS_MAX]

    def _above(self, device: DeviceNumber) -> Iterator[Holder]:
        """Devices that stand on this one; a dm device goes by its name."""
        for name in _names(self.sys / "dev" / "block" / str(device) / "holders"):
            dm_name = _read(self.sys / "block" / name / "dm" / "name").strip()
            yield Holder(kind="dm", name=dm_name or name)

    def _loops(self, number: int) -> Iterator[Holder]:
        """Loop devices on it as their file; sysfs counts them as no holders."""
        for file in (self.sys / "block").glob("loop*/loop/backing_file"):
            if _is_device(Path(_read(file).rstrip("\n")), number):
                yield Holder(kind="loop", name=f"/dev/{file.parent.parent.name}")

    def _mounts(self, device: DeviceNumber) -> Iterator[Holder]:
        """Mounts of it, once for each mount namespace that some visible process is in."""
        seen: set[str] = set()
        for pid in self._pids():
            try:
                namespace = os.readlink(self.proc / pid / "ns" / "mnt")  # noqa: PTH115 - no path
            except OSError:
                continue
            table = _read(self.proc / pid / "mountinfo") if namespace not in seen else ""
            if table:
                seen.add(namespace)
                yield from (Holder(kind="mount", name=at) for at in mount_points(table, device))

    def _swaps(self, number: int) -> Iterator[Holder]:
        for path in swap_paths(_read(self.proc / "swaps")):
            if _is_device(Path(path), number):
                yield Holder(kind="swap", name=path)

    def _processes(self, number: int) -> Iterator[Holder]:
        for pid in self._pids():
            folder = self.proc / pid / "fd"
            own = {str(each) for each in self.own()} if int(pid) == os.getpid() else set()
            names = (name for name in _names(folder) if name not in own)
            if any(_is_device(folder / name, number) for name in names):
                name = _read(self.proc / pid / "comm").strip() or "?"
                yield Holder(kind="process", name=name, pid=int(pid))

    def _pids(self) -> list[str]:
        """Return all processes, oldest first: a late one may be in a chroot and see less."""
        return sorted((name for name in _names(self.proc) if name.isdecimal()), key=int)


def nodes_of(pid: int, device: DeviceNumber, *, proc: Path = Path("/proc")) -> Iterator[Path]:
    """Yield the descriptors of a process that lead to a device, as paths that others can follow.

    They lead to the very inode that was opened, in whatever namespace or chroot it lies.
    """
    number, folder = os.makedev(device.major, device.minor), proc / str(pid) / "fd"
    yield from (folder / name for name in _names(folder) if _is_device(folder / name, number))


def mount_points(mountinfo: str, device: DeviceNumber) -> Iterator[str]:
    """Pick the mount points of a device out of the text of a mountinfo file (proc(5)).

    A name may hold what Python takes for a space or the end of a line, as U+00A0 and U+2028; the
    kernel escapes only those that separate its own fields and lines.
    """
    for line in mountinfo.split("\n"):
        fields = line.split(" ")
        if len(fields) > 4 and fields[2] == str(device):  # noqa: PLR2004 - the fifth is the point
            yield unescaped(fields[4])


def swap_paths(swaps: str) -> Iterator[str]:
    """Pick the files and devices that are swapped to out of the text of /proc/swaps."""
    for line in swaps.split("\n")[1:]:
        path = _SPACES.split(line, maxsplit=1)[0]
        if path:
            yield unescaped(path)


def _is_device(path: Path, number: int) -> bool:
    """Tell whether a path, its symlinks followed, is the node of this block device."""
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISBLK(found.st_mode) and found.st_rdev == number


def _names(folder: Path) -> list[str]:
    """Return a folder's names; none if it is gone or not to be read."""
    with contextlib.suppress(OSError):
        return os.listdir(folder)  # noqa: PTH208 - names are wanted, not paths
    return []


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_bytes().decode("utf-8", "replace")  # as text, "\r" would end a line
    return ""


def unescaped(text: str) -> str:
    r"""Undo the kernel's octal escapes: "\040" is a space."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)

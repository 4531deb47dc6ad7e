"""Who keeps a block device open: processes, mounts in every namespace, swap, devices above it.

For the one sentence that helps a person ("in use by process qemu (pid 41)"), never for a
decision: everything here is a look at one moment, and what may not be read is left out. It walks
/proc, so it is slow on a busy host (about 1 ms per 100 open files) and is asked only when
something is in the way. A process that maps the device and has closed it is not found.

Source: proc(5), Documentation/ABI/stable/sysfs-block (holders).
Privilege: root sees all processes, others their own. May be imported by `linux` and tests.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from statemachine.observed import DeviceNumber, Holder

_HOLDERS_MAX: Final = 64
"""Enough for a person; a base can have thousands of devices above it."""
_ESCAPED = re.compile(r"\\([0-7]{3})")


@attrs.frozen(kw_only=True)
class HolderFinder:
    """Looks through /proc and /sys; tests give folders of their own."""

    proc: Path
    sys: Path

    def find(self, device: DeviceNumber) -> tuple[Holder, ...]:
        """Return who has the device open, at most 64, each once."""
        number = os.makedev(device.major, device.minor)
        found: dict[Holder, None] = {}
        for search in (self._above(device), self._mounts(device), self._swaps(number)):
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
        for line in _read(self.proc / "swaps").splitlines()[1:]:
            path = _unescaped(line.split()[0])
            if _is_device(Path(path), number):
                yield Holder(kind="swap", name=path)

    def _processes(self, number: int) -> Iterator[Holder]:
        for pid in self._pids():
            folder = self.proc / pid / "fd"
            if any(_is_device(folder / name, number) for name in _names(folder)):
                name = _read(self.proc / pid / "comm").strip() or "?"
                yield Holder(kind="process", name=name, pid=int(pid))

    def _pids(self) -> list[str]:
        """Return all processes, oldest first: a late one may be in a chroot and see less."""
        return sorted((name for name in _names(self.proc) if name.isdecimal()), key=int)


def mount_points(mountinfo: str, device: DeviceNumber) -> Iterator[str]:
    """Pick the mount points of a device out of the text of a mountinfo file (proc(5))."""
    for line in mountinfo.splitlines():
        fields = line.split()
        if len(fields) > 4 and fields[2] == str(device):  # noqa: PLR2004 - the fifth is the point
            yield _unescaped(fields[4])


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
        return path.read_text(errors="replace")
    return ""


def _unescaped(text: str) -> str:
    r"""Undo the kernel's octal escapes: "\040" is a space."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)

"""What the figures are of: the machine, its kernel, the versions, the file system.

May be imported by the package only.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
from pathlib import Path
from typing import Final

from reconciler import udev
from reconciler.bench.results import Machine

_RULES: Final = tuple(
    Path(folder) for folder in ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d")
)
"""Where udevd reads rules from; udev(7)."""


def describe(folder: Path, *, where: str) -> Machine:
    """Describe this machine.

    Args:
        folder: where the roots and the CoW files are made.
        where: what to call it, in a person's words.
    """
    return Machine(
        where=where,
        kernel=platform.release(),
        cpu=_cpu(),
        cpus=os.cpu_count() or 1,
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        byre=importlib.metadata.version("byre"),
        file_system=_file_system(folder.resolve()),
        udev=Path("/run/udev/control").exists(),
        udev_rules=any((rules / udev.NAME).exists() for rules in _RULES),
    )


def _cpu() -> str:
    """Return the CPU's name as /proc/cpuinfo has it, else the machine's kind."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    """Return the type of the file system that a folder is on, by the longest mount point."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, point, kind, *_ = line.split(" ")
        if folder.is_relative_to(point):
            found[point] = kind
    return found[max(found, key=len)] if found else "unknown"

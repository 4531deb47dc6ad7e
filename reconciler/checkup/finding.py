"""What a check is given (`Patient`) and what it returns (`Finding`).

A check looks at one thing, changes nothing that lasts, never raises for what it finds, and says
what to do about it. Every path that it reads comes from the patient, so that a test can give it
any host. May be imported by the checks, by doctor and by cli.
"""

from __future__ import annotations

import enum
import importlib.metadata
import os
import platform
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import attrs

from reconciler.kernel.probe import dm_targets, reflink_refusal
from reconciler.root import Root
from statemachine.names import DEVICE_PREFIX
from statemachine.observed import Loop
from statemachine.record import Record


class Level(enum.StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    """Good to know; nothing is worse for it."""
    WARNING = "warning"
    """byre works, but not as well as it could, or not for long."""
    BLOCKER = "blocker"
    """No driver can work."""


@attrs.frozen(kw_only=True)
class Finding:
    """What one check found, and what to do about it; `remedy` is "" where nothing need be done."""

    check: str
    level: Level
    found: str
    remedy: str = ""


def _no_loops() -> tuple[Loop, ...]:
    return ()


@attrs.frozen(kw_only=True)
class Patient:
    """The host and the root that are looked at."""

    root: Root
    device_prefix: str = DEVICE_PREFIX
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    etc: Path = Path("/etc")
    run: Path = Path("/run")
    lib: Path = Path("/usr/lib")
    jail_folders: tuple[Path, ...] = (Path("/srv"), Path("/var/lib"))
    """Where jails mostly are, in which device nodes are to work."""
    release: str = attrs.field(factory=platform.release)
    sqlite: tuple[int, ...] = sqlite3.sqlite_version_info
    records: tuple[Record, ...] = ()
    """The disks of the root, as far as its log can be read."""
    loops: Callable[[], tuple[Loop, ...]] = _no_loops
    targets: Callable[[Path], frozenset[str]] = dm_targets
    """Takes the control node; see `kernel.probe`."""
    reflink: Callable[[Path], str] = reflink_refusal
    which: Callable[[str], str | None] = shutil.which
    installed: Callable[[str], str] = attrs.field(factory=lambda: version_of)
    """Returns the version of an installed distribution, "" if there is none."""

    @property
    def nearest(self) -> Path:
        """The root's folder, or the nearest parent of it that exists."""
        folder = self.root.path
        # os.path.isdir: a folder that may not be looked into counts as missing.
        while not os.path.isdir(folder) and folder != folder.parent:  # noqa: PTH112
            folder = folder.parent
        return folder


Check = Callable[[Patient], Finding]


def version_of(distribution: str) -> str:
    """Return the version of an installed distribution, "" if there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def read(path: Path) -> str:
    """Return a small file's text without white space at its ends; "" when it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def number(path: Path) -> int | None:
    """Return the number that a file of /proc or /sys holds; None when it has none."""
    text = read(path)
    return int(text) if text.lstrip("-").isdecimal() else None


def exists(path: Path) -> bool:
    """Tell whether anything is at a path, as far as this process may know."""
    return os.path.lexists(path)

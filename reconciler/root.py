"""Where a root keeps its things: the log, the settings, the lock, the disks' own files.

Reads the environment, as it is handed in, in `Root.from_environment`. Makes nothing; `stateroot`
does. May be imported by everything in `reconciler`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import attrs

from statemachine.errors import UsageError
from statemachine.names import LOG_NAME


def _absolute(path: Path | str) -> Path:
    if not str(path).isprintable():
        msg = f"the state root is {str(path)[:200]!r}; allowed is a path of printable text"
        raise UsageError(msg)
    return Path(path).absolute()


@attrs.frozen
class Root:
    """The state root: one log, one lock, one reconciler at a time."""

    path: Path = attrs.field(converter=_absolute)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], *, uid: int) -> Root:
        """Return the root that a command without `--root` works on.

        Args:
            environment: `BYRE_ROOT`, `XDG_STATE_HOME` and `HOME` are read.
            uid: 0 gets /var/lib/byre.
        """
        if environment.get("BYRE_ROOT"):
            return cls(environment["BYRE_ROOT"])
        if uid == 0:
            return cls("/var/lib/byre")
        state = Path(environment.get("XDG_STATE_HOME", ""))
        if not state.is_absolute():  # the XDG specification: a relative one is to be ignored
            state = Path(environment.get("HOME") or "/") / ".local/state"
        return cls(state / "byre")

    @property
    def log(self) -> Path:
        """The event log."""
        return self.path / LOG_NAME

    @property
    def config(self) -> Path:
        """The settings of this root, optional; see `Settings.read`."""
        return self.path / "config.toml"

    @property
    def lock(self) -> Path:
        """The file whose flock says that a reconciler is at work."""
        return self.path / "reconciler.lock"

    @functools.cached_property
    def cows(self) -> Path:
        """The folder of the CoW files and clones; each look at a disk asks for it several times."""
        return self.path / "cow"

    @property
    def bases(self) -> Path:
        """The folder of the bases that were copied into the root."""
        return self.path / "bases"

    def cow(self, disk_id: str, generation: int, suffix: str) -> Path:
        """Return the path of a disk's own file; new for each generation."""
        return _inside(self.cows, f"{disk_id}-{generation}.{suffix}")

    def kept(self, disk_id: str, generation: int, what: str, suffix: str) -> Path:
        """Return the path of a copy of a disk's own file: a point of this name, or one that waits.

        In the folder of the original, as only files of one file system can share blocks.
        """
        return self.cows / f"{disk_id}-{generation}@{what}.{suffix}"


@functools.lru_cache(maxsize=4096)
def _inside(folder: Path, name: str) -> Path:
    """Join a path once for the several questions that one look at a disk asks about it."""
    return folder / name

"""Where a root keeps its things, and the settings of a reconciler with their bounds.

Reads the environment once, in `Root.from_environment`. May be imported by everything in
`reconciler`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from statemachine.errors import UsageError
from statemachine.eventlog import LOG_NAME

DEVICE_PREFIX: Final = "byre-"
"""What our dm devices' names begin with; for people, never for identity."""

_PREFIX = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,31}")


def _absolute(path: Path | str) -> Path:
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
        home = Path(environment.get("HOME", "/"))
        return cls(Path(environment.get("XDG_STATE_HOME") or home / ".local/state") / "byre")

    @property
    def log(self) -> Path:
        """The event log."""
        return self.path / LOG_NAME

    @property
    def lock(self) -> Path:
        """The file whose flock says that a reconciler is at work."""
        return self.path / "reconciler.lock"

    @property
    def cows(self) -> Path:
        """The folder of the CoW files and clones."""
        return self.path / "cow"

    def cow(self, disk_id: str, generation: int, suffix: str) -> Path:
        """Return the path of a disk's own file; new for each generation."""
        return self.cows / f"{disk_id}-{generation}.{suffix}"


def _between(low: float, high: float) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    def check(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
        del instance
        if not low <= value <= high:
            msg = f"{attribute.name} is {value}; allowed is {low} to {high}"
            raise UsageError(msg)

    return check


@attrs.frozen(kw_only=True)
class Settings:
    """How a reconciler works. Times in seconds."""

    resync_s: float = attrs.field(default=60.0, validator=_between(1, 86_400))
    """How often everything is looked at without a wake-up, give or take a fifth."""
    workers: int = attrs.field(default=4, validator=_between(1, 64))
    """How many disks are worked on at once."""
    backoff_first_s: float = attrs.field(default=0.2, validator=_between(0.001, 3_600))
    backoff_cap_s: float = attrs.field(default=60.0, validator=_between(0.001, 86_400))
    attempts_max: int = attrs.field(default=30, validator=_between(1, 10_000))
    """After so many transient failures in a row a disk is stalled until something changes."""
    blocked_poll_s: float = attrs.field(default=1.0, validator=_between(0.01, 3_600))
    """How soon a blocked disk is looked at again when nothing wakes it."""
    device_prefix: str = attrs.field(default=DEVICE_PREFIX)

    @device_prefix.validator
    def _prefix_is_plain(self, attribute: attrs.Attribute[str], value: str) -> None:
        if _PREFIX.fullmatch(value) is None:
            msg = f"{attribute.name} is {value!r}; allowed are 1 to 32 of a-z, A-Z, 0-9, '_', '-'"
            raise UsageError(msg)

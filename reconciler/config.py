"""The settings of a reconciler with their bounds.

Reads a root's `config.toml` in `Settings.read`. May be imported by everything in `reconciler`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import attrs

from reconciler import limits
from reconciler.limits import Limits
from reconciler.space import CRITICAL, LOW, Watermark, Watermarks
from statemachine.errors import UsageError
from statemachine.names import DEVICE_PREFIX

FULL_PERCENT: Final = 100

_PREFIX = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,31}")


def _between(low: float, high: float) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    def check(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        del instance
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (isinstance(value, int | float) and is_number and low <= value <= high):
            msg = f"{attribute.name} is {value!r}; allowed is {low} to {high}"
            raise UsageError(msg)

    return check


def _watermark(value: object) -> Watermark:
    if isinstance(value, Watermark):
        return value
    try:
        return Watermark.parse(str(value))
    except ValueError as error:
        msg = f"a watermark is {value!r}; allowed is {error}"
        raise UsageError(msg) from error


def _levels(value: object) -> tuple[int, ...]:
    items = tuple(value) if isinstance(value, Sequence) else ()
    if not all(type(item) is int and 0 < item < FULL_PERCENT for item in items) or (
        not isinstance(value, Sequence) or isinstance(value, str)
    ):
        msg = f"cow_levels is {value!r}; allowed is a list of percentages, 1 to 99"
        raise UsageError(msg)
    return tuple(sorted(set(items)))


def _absolute_paths(value: object) -> tuple[Path, ...]:
    items = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (None,)
    paths = tuple(Path(item) for item in items if isinstance(item, str | Path))
    good = all(path.is_absolute() and ".." not in path.parts for path in paths)
    if len(paths) != len(items) or not good:
        msg = f"link_roots is {value!r}; allowed is a list of absolute paths without '..'"
        raise UsageError(msg)
    return paths


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
    blocked_poll_cap_s: float = attrs.field(default=10.0, validator=_between(0.01, 3_600))
    """How slow that becomes for a disk that stays in use, where the watchers are at work."""
    low_space: Watermark = attrs.field(default=LOW, converter=_watermark)
    """With less room than this on the CoW files' file system, no new disk begins."""
    critical_space: Watermark = attrs.field(default=CRITICAL, converter=_watermark)
    """With less room than this, live disks are frozen."""
    cow_levels: tuple[int, ...] = attrs.field(default=(50, 80, 95), converter=_levels)
    """At which fill levels of an exception store, in percent, the log tells of it."""
    link_roots: tuple[Path, ...] = attrs.field(default=(), converter=_absolute_paths)
    """The folders below which links may be; none for anywhere."""
    limits: Limits = attrs.field(factory=Limits, converter=limits.read)
    """How many disks there may be, and how much room they may have."""
    device_prefix: str = attrs.field(default=DEVICE_PREFIX)

    @device_prefix.validator
    def _prefix_is_plain(self, attribute: attrs.Attribute[str], value: object) -> None:
        if not isinstance(value, str) or _PREFIX.fullmatch(value) is None:
            msg = f"{attribute.name} is {value!r}; allowed are 1 to 32 of a-z, A-Z, 0-9, '_', '-'"
            raise UsageError(msg)

    @property
    def watermarks(self) -> Watermarks:
        """Both watermarks."""
        return Watermarks(low=self.low_space, critical=self.critical_space)

    @classmethod
    def read(cls, path: Path, **given: object) -> Self:
        """Return a root's settings: the defaults, what its file says, and what was given.

        Args:
            path: TOML with the names of the fields; it may be missing.
            given: fields that win over the file, where they are not None.

        Raises:
            UsageError: the file cannot be read, has another key, or a value out of its bounds.
        """
        said = _from_file(path)
        names = [field.name for field in attrs.fields(cls)]
        for key in said:
            if key not in names:
                msg = f"{path}: unknown key {key!r}; allowed are {', '.join(names)}"
                raise UsageError(msg)
        try:
            cls(**said)
        except UsageError as error:
            raise UsageError(f"{path}: {error.message}") from error
        return cls(**{**said, **{key: value for key, value in given.items() if value is not None}})


def _from_file(path: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - not for those who only ask the log

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError as error:
        if not os.access(path.parent, os.X_OK):
            return {}  # the root itself is closed to us, and the log says so better
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read: {error}"
        raise UsageError(msg, hint="mend it or move it away; the defaults are sensible") from error

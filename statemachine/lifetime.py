"""How long a disk is wanted: until a time, for a time, or until nobody writes to it any more.

This module sees plain data and reads no clock; when a disk's time is over is in its record, and
`reconciler.lapse` acts on it.

Pure; may be imported by spec and everything above it.
"""

from __future__ import annotations

import datetime
import enum
import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import attrs

FIELDS: Final = ("expires_at", "ttl", "on_expiry", "idle_pause")
DURATION_S_MAX: Final = 3650 * 86_400.0
DURATION_RULE: Final = "seconds, or text such as '90s', '2h', '1d12h'; 1 s to 3650 days"
MOMENT_RULE: Final = (
    "a time with its offset, such as 2026-11-21T20:00:00Z, of the years 1970 to 2199"
)

Note = Callable[[str, object, str], None]
"""Takes a fault: the field, what was found, what is allowed."""

_NS: Final = 1_000_000_000
_YEARS: Final = range(1970, 2200)  # nanoseconds of later ones do not fit into 64 bits for long
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION: Final = r"(?:\d{1,9}(?:\.\d{1,3})?[smhdw])+"
_PART: Final = r"([\d.]+)([smhdw])"


T = TypeVar("T")


class OnExpiry(enum.StrEnum):
    """What becomes of a disk whose time is over."""

    PAUSE = "pause"
    """Its data is kept; what no clock should decide alone is left to a person."""
    REMOVE = "remove"


@attrs.frozen(kw_only=True)
class Lifetime:
    """What a spec says of a disk's time."""

    expires_at: int | None = None
    """UTC in ns."""
    ttl_s: float | None = None
    """Seconds from the declaration that says it."""
    on_expiry: OnExpiry = OnExpiry.PAUSE
    idle_pause_s: float | None = None
    """After so many seconds without a write the disk is paused, unless somebody has it open."""

    def to_data(self) -> dict[str, str]:
        """Return plain data that `from_data` reads back, without what is at its default."""
        data = {}
        if self.expires_at is not None:
            data["expires_at"] = moment_text(self.expires_at)
        if self.ttl_s is not None:
            data["ttl"] = duration_text(self.ttl_s)
        if self.on_expiry is not OnExpiry.PAUSE:
            data["on_expiry"] = self.on_expiry.value
        if self.idle_pause_s is not None:
            data["idle_pause"] = duration_text(self.idle_pause_s)
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, str]) -> Lifetime:
        """Read back what `to_data` wrote; raises ValueError on anything else."""
        if data.keys().isdisjoint(FIELDS):
            return FOREVER
        return cls(
            expires_at=moment(data["expires_at"]) if "expires_at" in data else None,
            ttl_s=duration_s(data["ttl"]) if "ttl" in data else None,
            on_expiry=OnExpiry(data.get("on_expiry", OnExpiry.PAUSE)),
            idle_pause_s=duration_s(data["idle_pause"]) if "idle_pause" in data else None,
        )


FOREVER: Final = Lifetime()
"""That of most disks: until somebody says otherwise."""


def end_of(spec: Mapping[str, str], declared_at: int) -> int | None:
    """Return when the time of a disk is over, by a spec that was declared at a time; UTC in ns."""
    if "expires_at" in spec:
        return moment(spec["expires_at"])
    return declared_at + int(duration_s(spec["ttl"]) * _NS) if "ttl" in spec else None


def read_lifetime(table: Mapping[str, object], note: Note, *, can_be_paused: bool) -> Lifetime:
    """Read the fields of a spec that say how long the disk is wanted.

    Args:
        table: the disk's table.
        note: is told of every fault.
        can_be_paused: whether this disk can; a throwaway disk is removed at its end.
    """
    found = Lifetime(
        expires_at=_read(table, "expires_at", moment, MOMENT_RULE, note),
        ttl_s=_read(table, "ttl", duration_s, DURATION_RULE, note),
        on_expiry=_on_expiry(table, note),
        idle_pause_s=_read(table, "idle_pause", duration_s, DURATION_RULE, note),
    )
    if found.expires_at is not None and found.ttl_s is not None:
        note("ttl", table["ttl"], "nothing beside 'expires_at': one of the two")
    if not can_be_paused and table.get("on_expiry") == OnExpiry.PAUSE.value:
        note("on_expiry", table["on_expiry"], "remove with persistent = false")
    if not can_be_paused and "idle_pause" in table:
        note("idle_pause", table["idle_pause"], "nothing with persistent = false")
    return found


def duration_s(found: object) -> float:
    """Read a duration; returns seconds, to the millisecond. Raises ValueError."""
    if isinstance(found, bool):
        raise ValueError(DURATION_RULE)  # noqa: TRY004 - one error for all that does not fit
    if isinstance(found, int | float):
        seconds = float(found)
    elif isinstance(found, str) and re.fullmatch(_DURATION, found, re.ASCII):
        parts = re.findall(_PART, found, re.ASCII)
        seconds = sum(float(count) * _UNITS[unit] for count, unit in parts)
    else:
        raise ValueError(DURATION_RULE)
    if not 1 <= seconds <= DURATION_S_MAX:
        raise ValueError(DURATION_RULE)
    return round(seconds, 3)


def duration_text(length_s: float) -> str:
    """Return seconds as "7200s", in full."""
    return f"{length_s:.3f}".rstrip("0").rstrip(".") + "s"


def moment(found: object) -> int:
    """Read a time with its offset; returns UTC in ns, to the microsecond. Raises ValueError."""
    if isinstance(found, str):
        found = datetime.datetime.fromisoformat(found)
    if not isinstance(found, datetime.datetime) or found.tzinfo is None:
        raise ValueError(MOMENT_RULE)
    try:
        since = found - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    except OverflowError as error:
        raise ValueError(MOMENT_RULE) from error
    if found.year not in _YEARS or since.days < 0:
        raise ValueError(MOMENT_RULE)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def moment_text(at: int) -> str:
    """Return UTC in ns as "2026-11-21T20:00:00Z", with microseconds where it has some."""
    seconds, rest = divmod(at // 1000, 1_000_000)
    whole = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}{f'.{rest:06d}' if rest else ''}Z"


def _read(
    table: Mapping[str, object],
    field: str,
    read: Callable[[object], T],
    rule: str,
    note: Note,
) -> T | None:
    if field not in table:
        return None
    try:
        return read(table[field])
    except ValueError:
        note(field, table[field], rule)
        return None


def _on_expiry(table: Mapping[str, object], note: Note) -> OnExpiry:
    found = table.get("on_expiry", OnExpiry.PAUSE)
    for each in OnExpiry:
        if found == each.value:
            return each
    note("on_expiry", found, ", ".join(each.value for each in OnExpiry))
    return OnExpiry.PAUSE

"""Limits of a root: how many disks, how much they may promise and how much they may take.

What is there and what is asked is counted in `allowance`. Pure; may be imported by config and
everything above.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from statemachine.errors import UsageError
from statemachine.units import Bytes, UnitError

DISKS_MAX: Final = 10_000_000
FIELDS: Final = ("disks", "bytes_promised", "bytes_used")


@attrs.frozen(kw_only=True)
class Limits:
    """The bounds of one root; None for none."""

    disks: int | None = None
    """How many disks there may be that are not removed."""
    bytes_promised: Bytes | None = None
    """How large their own files may become all together."""
    bytes_used: Bytes | None = None
    """How much room their own files may take all together before no disk begins or goes live."""


def read(found: object) -> Limits:
    """Return the limits of a table; raises UsageError."""
    if isinstance(found, Limits):
        return found
    if not isinstance(found, Mapping):
        raise UsageError(f"limits is {found!r}; allowed is a table with {', '.join(FIELDS)}")
    for key in found:
        if key not in FIELDS:
            raise UsageError(f"unknown key 'limits.{key}'; allowed are {', '.join(FIELDS)}")
    return Limits(
        disks=_count(found.get("disks")),
        bytes_promised=_bytes(found, "bytes_promised"),
        bytes_used=_bytes(found, "bytes_used"),
    )


def _count(found: object) -> int | None:
    if found is None or (type(found) is int and 0 <= found <= DISKS_MAX):
        return found
    raise UsageError(f"limits.disks is {found!r}; allowed is 0 to {DISKS_MAX}")


def _bytes(table: Mapping[str, object], field: str) -> Bytes | None:
    found = table.get(field)
    try:
        if found is None:
            return None
        if isinstance(found, str):
            return Bytes.parse(found)
        if type(found) is int:
            return Bytes(found)
    except UnitError:
        pass
    raise UsageError(f"limits.{field} is {found!r}; allowed is bytes, or text such as '64GiB'")

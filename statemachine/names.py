"""Names and identities as types: what a disk is called, and what proves that a thing is ours.

A dm device is ours by its UUID, `BYRE-<disk id>-<generation>`; a loop device by its backing file
and, for a base, by the marker in its `lo_file_name`; a file by (device, inode). Names are for
people. Pure; may be imported by everything above `errors`.
"""

from __future__ import annotations

import re
from typing import Final, NewType, Self

import attrs

DiskName = NewType("DiskName", str)
"""A checked disk name; made by `disk_name` only."""

NAME_LENGTH_MAX: Final = 63
NAME_RULE: Final = (
    f"1 to {NAME_LENGTH_MAX} characters: a-z, 0-9, '.', '_' and '-', "
    "beginning with a letter or digit, without '..'"
)
HOST: Final = "@host"
"""The name under which events of the host itself stand in the log; no disk can have it."""

DEVICE_PREFIX: Final = "byre-"
"""What our dm devices' names begin with by default; for people, never for identity."""

LOG_NAME: Final = "byre.db"
"""The log's file in the state root."""

_NAME = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{NAME_LENGTH_MAX - 1}}}")
# `re` compiles these when one is first asked for; whoever shows disks needs none of them.
_UUID: Final = r"BYRE-([0-9a-f]{32})-([1-9][0-9]{0,9})"
_MARKER: Final = r"BYRE-base-([0-9a-f]{16})"
_DIGEST: Final = r"[0-9a-f]{64}"
UUID_PREFIX: Final = "BYRE-"
_ORIGIN: Final = "-origin"
BASE_RULE: Final = "base:NAME, sha256: and 64 hex digits, or a path (./base:… for such a file)"


def disk_name(text: object) -> DiskName:
    """Check a disk name.

    Raises:
        ValueError: with the rule in its text, when the name breaks it.
    """
    if not isinstance(text, str) or _NAME.fullmatch(text) is None or ".." in text:
        found = repr(text[:80]) if isinstance(text, str) else f"a {type(text).__name__}"
        msg = f"{found} is not a disk name; allowed is {NAME_RULE}"
        raise ValueError(msg)
    return DiskName(text)


def point_name(text: object) -> str:
    """Check the name of a kept point of a disk; the rule is that of disks.

    Raises:
        ValueError: with the rule in its text, when the name breaks it.
    """
    if not isinstance(text, str) or _NAME.fullmatch(text) is None or ".." in text:
        found = repr(text[:80]) if isinstance(text, str) else f"a {type(text).__name__}"
        msg = f"{found} is not the name of a point; allowed is {NAME_RULE}"
        raise ValueError(msg)
    return text


def base_reference(text: str) -> tuple[str, str] | None:
    """Read "base:NAME" or "sha256:DIGEST", which stand for a registered base; None for a path.

    A file of such a name is written "./base:NAME".

    Returns:
        ("name", NAME) or ("sha256", DIGEST).

    Raises:
        ValueError: it begins so and goes on otherwise.
    """
    kind, colon, rest = text.partition(":")
    if not colon or kind not in ("base", "sha256"):
        return None
    if kind == "base":
        return "name", disk_name(rest)
    if re.fullmatch(_DIGEST, rest) is None:
        raise ValueError(BASE_RULE)
    return "sha256", rest


@attrs.frozen
class DmUuid:
    """The identity of one life-long dm device: a disk in one of its generations."""

    disk_id: str
    generation: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a dm UUID; None when it is not one of ours, however similar it looks."""
        match = re.fullmatch(_UUID, text)
        return cls(match[1], int(match[2])) if match else None

    def __str__(self) -> str:
        """Print as the kernel keeps it: `BYRE-<32 hex digits>-<generation>`."""
        return disk_uuid(self.disk_id, self.generation)


def disk_uuid(disk_id: str, generation: int) -> str:
    """Return the dm UUID of a disk in one of its generations, as `DmUuid` reads it."""
    return f"{UUID_PREFIX}{disk_id}-{generation}"


def origin_uuid(disk_id: str, generation: int) -> str:
    """Return the dm UUID of the origin of a disk that is larger than its base."""
    return f"{disk_uuid(disk_id, generation)}{_ORIGIN}"


def origin_owner(text: str) -> DmUuid | None:
    """Read what `origin_uuid` wrote; None when it is something else."""
    return DmUuid.parse(text.removesuffix(_ORIGIN)) if text.endswith(_ORIGIN) else None


def origin_name(device_name: str) -> str:
    """Return what the origin is called; no disk's name has a colon, so it is nobody's device."""
    return f"{device_name}:origin"


def base_marker(root_id: str) -> str:
    """Return the `lo_file_name` that says: this loop is on a base, for the root of this id."""
    return f"BYRE-base-{root_id}"


def cow_marker(disk_id: str, generation: int) -> str:
    """Return the `lo_file_name` of the loop on a disk's own file (at most 63 characters)."""
    return f"{UUID_PREFIX}{disk_id}-{generation}"


def is_base_marker(text: str) -> bool:
    """Tell whether a loop's `lo_file_name` marks a base of any byre root."""
    return re.fullmatch(_MARKER, text) is not None

"""A jail as a spec names it: where its device node is to be, and whose it is to be.

A jailer's process changes its root to the jail's folder and then has no way to a disk but a device
node inside. This module sees plain data and touches no file.

Pure; may be imported by spec and everything above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self

import attrs

ID_MAX: Final = 2**32 - 2
"""The largest uid and gid; 2^32 - 1 says "leave it as it is" to chown(2)."""
FIELDS: Final = ("root", "node", "uid", "gid")

Note = Callable[[str, object, str], None]
"""Takes a fault: the field, what was found, what is allowed."""
ReadPath = Callable[[Mapping[str, object], str], Path | None]
"""Reads an absolute path from a field of a table, or notes why it cannot."""


@attrs.frozen(kw_only=True)
class Jail:
    """Where a device node is to be, and who is to open it; its mode is 0600."""

    root: Path
    """The jail's folder, which its process sees as "/"; absolute."""
    node: Path
    """The node, relative to the root."""
    uid: int
    gid: int

    @property
    def path(self) -> Path:
        """Where the node is, for whoever is outside of the jail."""
        return self.root / self.node

    def to_data(self) -> dict[str, str]:
        """Return plain data that `from_data` reads back."""
        return {f"{_PREFIX}{field}": str(getattr(self, field)) for field in FIELDS}

    @classmethod
    def from_data(cls, data: Mapping[str, str]) -> Self | None:
        """Read back what `to_data` wrote; None where no jail is in it."""
        if f"{_PREFIX}root" not in data:
            return None
        return cls(
            root=Path(data["jail.root"]),
            node=Path(data["jail.node"]),
            uid=int(data["jail.uid"]),
            gid=int(data["jail.gid"]),
        )


def path_in(data: Mapping[str, str]) -> str:
    """Return where the node of a spec's data is to be; "" where it has no jail."""
    jail = Jail.from_data(data)
    return str(jail.path) if jail is not None else ""


def read_jail(found: object, read_path: ReadPath, note: Note) -> Jail | None:
    """Read the table `jail` of a spec.

    Args:
        found: what stands in the spec.
        read_path: for the root, by the same rules as the spec's other paths.
        note: is told of every fault, with fields such as "jail.uid".

    Returns:
        The jail; None when there was a fault.
    """
    if not isinstance(found, Mapping):
        note("jail", found, f"a table with {', '.join(FIELDS)}")
        return None
    for key in found:
        if key not in FIELDS:
            note(f"jail.{key!s:.80}", found[key], f"the fields {', '.join(FIELDS)}")
    root = read_path({"jail.root": found.get("root")}, "jail.root")
    node = _node(found.get("node"), note)
    uid = _number(found.get("uid"), "jail.uid", note)
    gid = _number(found.get("gid"), "jail.gid", note)
    if root is None or node is None or uid is None or gid is None:
        return None
    return Jail(root=root, node=node, uid=uid, gid=gid)


def _node(found: object, note: Note) -> Path | None:
    is_text = isinstance(found, str) and found.isprintable()
    path = Path(found) if isinstance(found, str) and is_text else Path()
    if not path.parts or path.is_absolute() or ".." in path.parts:
        note("jail.node", found, "a path inside the jail's root: relative, without '..'")
        return None
    return path


def _number(found: object, field: str, note: Note) -> int | None:
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= ID_MAX:
        return found
    note(field, found, f"a number, 0 to {ID_MAX}")
    return None


_PREFIX: Final = "jail."

"""The table `bases`: the projection of the registered bases, beside that of the disks.

Works on a connection; begins and commits nothing. May be imported by batch and what stands above
it in `statemachine`.
"""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Final

from statemachine import registry
from statemachine.basefacts import Base
from statemachine.codec import to_data
from statemachine.errors import LogDamaged, RefusedError
from statemachine.events import Event
from statemachine.machine import Desired, State
from statemachine.quickread import structure
from statemachine.record import Record, from_row
from statemachine.registry import Bases
from statemachine.schema import IN_USE, IS_RARE, SELECT_EVENTS, has_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TYPES: Final = ", ".join(f"'{each.value}'" for each in sorted(registry.TYPES))
_EVENTS: Final = f"{SELECT_EVENTS} WHERE type IN ({_TYPES}) AND {IS_RARE} ORDER BY seq"
_ON_BASE: Final = (
    f"SELECT name, record FROM disks WHERE ({IN_USE}) "  # noqa: S608 - constants
    "AND json_extract(record, '$.base.inode') = ?"
)
NAMED_MAX: Final = 5
"""So many disks are named in a refusal."""


def read(connection: sqlite3.Connection) -> Bases:
    """Return the registered bases; none from a log of an older schema that is only read."""
    try:
        rows = connection.execute("SELECT record FROM bases ORDER BY name")
    except sqlite3.OperationalError:
        if has_table(connection, "bases"):
            raise
        return {}
    return {base.name: base for base in (_base(text) for (text,) in rows)}


def write(connection: sqlite3.Connection, bases: Bases) -> None:
    """Write all of them anew; they are few."""
    connection.execute("DELETE FROM bases")
    rows = ((base.name, base.path, base.sha256, _text(base)) for base in bases.values())
    connection.executemany("INSERT INTO bases VALUES (?, ?, ?, ?)", rows)


def replayed(connection: sqlite3.Connection) -> Bases:
    """Return what the events say; raises LogDamaged when one of them cannot be read."""
    bases: Bases = {}
    for row in connection.execute(_EVENTS):
        event = Event(*row)
        try:
            registry.apply(bases, event)
        except ValueError as error:
            raise LogDamaged(str(error), seq=event.seq) from error
    return bases


def differences(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Return (name, as recorded, as the events say) of each base that is not the same."""
    ours, theirs = read(connection), replayed(connection)
    return [
        (name, _shown(ours.get(name)), _shown(theirs.get(name)))
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]


def refuse_in_use(
    connection: sqlite3.Connection, base: Base, moved: Mapping[str, Record | None]
) -> None:
    """Refuse to let a base go that a disk stands on.

    Args:
        connection: sees the disks as they were.
        base: the base.
        moved: the disks that this transaction has moved since.

    Raises:
        RefusedError: naming the disks.
    """
    rows = connection.execute(_ON_BASE, (base.file.inode,)).fetchall()
    stored = [from_row(json.loads(text)) for name, text in rows if name not in moved]
    users = users_of(base, [*stored, *(record for record in moved.values() if record)])
    if users:
        more = f" and {len(users) - NAMED_MAX} more" if len(users) > NAMED_MAX else ""
        msg = f"base {base.name!r} is in use by {', '.join(users[:NAMED_MAX])}{more}"
        raise RefusedError(msg, hint="remove these disks first: without it their data is lost")


def users_of(base: Base, records: Iterable[Record]) -> list[str]:
    """Return the names of the disks that stand on a base, by its file."""
    return sorted(
        record.name
        for record in records
        if not (record.state is State.REMOVED and record.desired is Desired.REMOVED)
        and record.base.same_file(base.file, same_boot=record.base_boot_id == base.boot_id)
    )


def _text(base: Base) -> str:
    return json.dumps(to_data(base), separators=(",", ":"), sort_keys=True)


def _base(text: str) -> Base:
    try:
        return structure(json.loads(text), Base)
    except (ValueError, RecursionError) as error:
        msg = f"a record of the table `bases` cannot be read: {error}"
        raise LogDamaged(msg, hint="the events decide: `byre replay --repair`") from error


def _shown(base: Base | None) -> str:
    return _text(base) if base is not None else "none"

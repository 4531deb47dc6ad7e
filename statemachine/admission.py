"""What a request is about to make of the disks, for whoever bounds them.

Asked in the transaction in which the events get their places, so two requests cannot both be
under a bound that they pass together. Whoever is asked makes no call to the kernel and is quick.

Works on a connection; may be imported by batch and what stands above it, and by `reconciler`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from statemachine.machine import Desired, State
from statemachine.record import Record
from statemachine.schema import IN_USE
from statemachine.units import Bytes

if TYPE_CHECKING:
    import sqlite3

SAYS_SIZE: Final = ("cow_size", "cow_max", "chunk_size", "driver")
"""The fields of a spec that say how large a disk's own file may become."""

Promise = Callable[[Mapping[str, str], Bytes], int]
"""Takes a spec's data, of which `SAYS_SIZE` is there at least, and the size of the base."""

_COUNT: Final = f"SELECT count(*) FROM disks WHERE ({IN_USE})"  # noqa: S608 - constants
_OTHERS: Final = f"{_COUNT} AND name NOT IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants
_ALIKE: Final = (
    "SELECT json_extract(record, '$.base.size'), "  # noqa: S608 - constants
    "json_object({fields}), count(*) "
    f"FROM disks WHERE ({IN_USE}) AND name NOT IN (SELECT value FROM json_each(?)) GROUP BY 1, 2"
)
_FIELDS: Final = ", ".join(f"'{each}', json_extract(record, '$.spec.{each}')" for each in SAYS_SIZE)


class Admission:
    """One request that has its places, and that may still be refused.

    Args:
        connection: sees the disks as they are stored.
        before: the records of this request's disks, as they were before it.
        after: those that differ from what is stored, after it.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        before: Mapping[str, Record | None],
        after: Mapping[str, Record | None],
    ) -> None:
        self._connection = connection
        self._before = before
        self._after = after

    def more_disks(self) -> int:
        """Return how many more disks there are after this request; negative for fewer."""
        return sum(_in_use(new) - _in_use(old) for old, new in self._moved())

    def more_promised(self, promise: Promise) -> int:
        """Return how much more is promised after this request."""
        return sum(_promised(new, promise) - _promised(old, promise) for old, new in self._moved())

    def disks(self) -> int:
        """Return how many disks there are after this request."""
        held = [name for name, record in self._after.items() if record is not None]
        row = self._connection.execute(_OTHERS, (json.dumps(held),)).fetchone()
        return int(row[0]) + sum(map(_in_use, self._after.values()))

    def promised(self, promise: Promise) -> int:
        """Return how much is promised after this request."""
        held = json.dumps([name for name, record in self._after.items() if record is not None])
        total = sum(_promised(record, promise) for record in self._after.values())
        return total + promised(self._connection, promise, without=held)

    def _moved(self) -> Iterator[tuple[Record | None, Record | None]]:
        for name, before in self._before.items():
            yield before, self._after[name]


Admit = Callable[[Admission], None]
"""Raises RefusedError for a request that is not to be stored."""


def count(connection: sqlite3.Connection) -> int:
    """Return how many disks there are that are not removed."""
    return int(connection.execute(_COUNT).fetchone()[0])


def promised(connection: sqlite3.Connection, promise: Promise, *, without: str = "[]") -> int:
    """Return how large the own files of all disks may become, those of some names left out.

    Most disks are alike, so this is a few groups however many there are.
    """
    rows = connection.execute(_ALIKE.format(fields=_FIELDS), (without,))
    return sum(many * promise(_said(text), Bytes(size)) for size, text, many in rows)


def _said(text: str) -> dict[str, str]:
    return {field: value for field, value in json.loads(text).items() if value is not None}


def _in_use(record: Record | None) -> int:
    if record is None:
        return 0
    return int(record.state is not State.REMOVED or record.desired is not Desired.REMOVED)


def _promised(record: Record | None, promise: Promise) -> int:
    return promise(record.spec, record.base.size) if record and _in_use(record) else 0

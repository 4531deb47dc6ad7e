"""The check of a whole set of specs.

A set is accepted as a whole or not at all, and every fault of it is named at once: file, disk,
field, what was found, what is allowed. This module sees plain data (what TOML, YAML and JSON
readers return) and touches no file; whether a base exists is asked in `reconciler.specs`.

Pure; may be imported by everything above `spec`.
"""

from __future__ import annotations

import enum
import functools
import os.path
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import attrs

from statemachine import lifetime
from statemachine.errors import SpecError
from statemachine.jail import Jail, read_jail
from statemachine.lifetime import Lifetime
from statemachine.machine import Desired
from statemachine.names import BASE_RULE, NAME_RULE, DiskName, base_reference, disk_name
from statemachine.spec import BUSY_TIMEOUT_S, DiskSpec, DriverChoice, OnBusy
from statemachine.specfault import SpecFault, shown
from statemachine.units import (
    CHUNK_SIZES,
    DEFAULT_CHUNK,
    LARGEST_BYTES,
    SECTOR_BYTES,
    Bytes,
    UnitError,
)

PATH_LENGTH_MAX: Final = 4095  # PATH_MAX of linux/limits.h, less the final NUL
DISKS_MAX: Final = 100_000
"""How many disks one set may hold; a bound, so that a runaway generator is told early."""
COW_BYTES_MIN: Final = 2**20
"""The smallest `cow_size`: below it a CoW is full before anybody can look."""
COW_CHUNKS_MIN: Final = 16
"""And so many chunks: with fewer, header and metadata leave next to nothing for data."""
BUSY_TIMEOUT_S_MAX: Final = 86_400.0

E = TypeVar("E", bound=enum.StrEnum)


def parse(document: object, *, source: str, folder: Path) -> tuple[DiskSpec, ...]:
    """Check one document as a whole.

    Args:
        document: plain data: a table with the one key `disk`, a list of tables.
        source: the file's name, for errors.
        folder: absolute; what relative paths are relative to.

    Returns:
        The specs in the order of the document; none for an empty document.

    Raises:
        SpecError: with one line for each fault.
    """
    specs, faults = read(document, source=source, folder=folder)
    if faults:
        raise SpecError(faults)
    return specs


def read(
    document: object, *, source: str, folder: Path
) -> tuple[tuple[DiskSpec, ...], tuple[str, ...]]:
    """Check one document as `parse` does; returns the good specs, and a line for each fault."""
    reader = _Reader(source, folder)
    specs = reader.document(document)
    return tuple(specs), tuple(map(str, reader.faults))


def parse_lifetime(table: Mapping[str, object], *, source: str) -> Lifetime:
    """Check the fields of a table that say how long a disk is wanted; raises SpecError."""
    reader = _Reader(source, Path("/"))
    found = lifetime.read_lifetime(table, reader.note, can_be_paused=True)
    if reader.faults:
        raise SpecError(list(map(str, reader.faults)))
    return found


def given_of(table: Mapping[str, object]) -> dict[str, object]:
    """Return what was said of a table; None is what was not."""
    return {field: value for field, value in table.items() if value is not None}


def check_unique(specs: Sequence[tuple[str, DiskSpec]]) -> None:
    """Check that no disk is named twice in a set.

    Args:
        specs: (source, spec) pairs.

    Raises:
        SpecError: naming each repeated disk with both sources.
    """
    first: dict[str, str] = {}
    taken: dict[Path, str] = {}
    faults: list[str] = []
    for source, spec in specs:
        if spec.name in first:
            allowed = f"each name once; it stands in {first[spec.name]} already"
            faults.append(_fault(source, f"disk {spec.name!r}", "name", spec.name, allowed))
        first.setdefault(spec.name, source)
        for field, path in spec.places if spec.state is not Desired.REMOVED else ():
            if taken.setdefault(path, spec.name) != spec.name:
                allowed = f"each {field} once; disk {taken[path]!r} has it already"
                faults.append(_fault(source, f"disk {spec.name!r}", field, str(path), allowed))
    if faults:
        raise SpecError(faults)


def _fault(source: str, disk: str, field: str, found: object, allowed: str) -> str:
    return str(SpecFault(source=source, disk=disk, field=field, found=found, allowed=allowed))


def _field(key: object) -> str:
    return key[:80] if isinstance(key, str) else shown(key)


class _Reader:
    """Reads one document and gathers every fault instead of stopping at the first."""

    def __init__(self, source: str, folder: Path) -> None:
        self.faults: list[SpecFault] = []
        self._source = source
        self._folder = folder
        self._disk = ""

    def document(self, document: object) -> list[DiskSpec]:
        """Read the whole document."""
        if document is None:
            return []
        if not isinstance(document, Mapping):
            self.note("", document, "a table with the key 'disk'")
            return []
        for key in document:
            if key != "disk":
                self.note(_field(key), document[key], "only 'disk' at the top, a list of tables")
        tables = document.get("disk", [])
        if isinstance(tables, Mapping) or not isinstance(tables, list):
            self.note("disk", tables, "a list of tables ([[disk]] in TOML)")
            return []
        if len(tables) > DISKS_MAX:
            self.note("disk", f"{len(tables)} disks", f"at most {DISKS_MAX} in one set")
            return []
        return [
            spec for number, table in enumerate(tables, 1) if (spec := self._table(number, table))
        ]

    def _table(self, number: int, table: object) -> DiskSpec | None:
        self._disk = f"disk number {number}"
        if not isinstance(table, Mapping):
            self.note("", table, "a table of fields")
            return None
        if isinstance(table.get("name"), str):
            self._disk = f"disk {table['name'][:80]!r}"
        before = len(self.faults)
        for key in table:
            if key not in FIELDS:
                self.note(_field(key), table[key], f"the fields {', '.join(FIELDS)}")
        name, base = self._name(table), self._path(table, "base", required=True)
        state = self._choice(table, "state", Desired, Desired.LIVE)
        link = self._path(table, "link", required=False)
        jail = self._jail(table, link)
        driver = self._choice(table, "driver", DriverChoice, DriverChoice.AUTO)
        chunk_size = self._chunk_size(table, driver)
        disk_size = self._disk_size(table)
        cow_size = self._size(table, "cow_size", chunk_size)
        cow_max = self._size(table, "cow_max", chunk_size)
        if cow_size is not None and cow_max is not None and cow_max < cow_size:
            self.note("cow_max", str(table["cow_max"]), f"at least cow_size, {cow_size}")
        persistent = self._truth(table, "persistent", default=True)
        if state is Desired.PAUSED and not persistent:
            self.note("state", state.value, "attached, live, removed with persistent = false")
        direct_io = self._truth(table, "direct_io")
        discard = self._of_snapshots(table, "discard", driver)
        sparsify = self._of_snapshots(table, "sparsify", driver)
        on_busy = self._choice(table, "on_busy", OnBusy, OnBusy.WAIT)
        busy_timeout_s = self._seconds(table, "busy_timeout_s", BUSY_TIMEOUT_S)
        lasting = lifetime.read_lifetime(table, self.note, can_be_paused=persistent)
        if len(self.faults) > before or name is None or base is None:
            return None
        return DiskSpec(
            name=name,
            base=base,
            state=state,
            link=link,
            jail=jail,
            driver=driver,
            size=disk_size,
            cow_size=cow_size,
            cow_max=cow_max,
            chunk_size=chunk_size,
            persistent=persistent,
            direct_io=direct_io,
            discard=discard,
            sparsify=sparsify,
            on_busy=on_busy,
            busy_timeout_s=busy_timeout_s,
            lifetime=lasting,
        )

    def _name(self, table: Mapping[str, object]) -> DiskName | None:
        try:
            return disk_name(table.get("name"))
        except ValueError:
            self.note("name", table.get("name"), NAME_RULE)
            return None

    def _path(self, table: Mapping[str, object], field: str, *, required: bool) -> Path | None:
        text = table.get(field)
        if text is None and not required and field not in table:
            return None
        if not isinstance(text, str) or not text or not text.isprintable():
            self.note(field, text, "a path: printable text, not empty")
            return None
        if field == "base" and (reference := self._reference(text)) is not None:
            return reference
        if field != "base" and ".." in Path(text).parts:
            self.note(field, text, "a path without '..'")
            return None
        path = Path(os.path.normpath(self._folder / text))
        if len(str(path).encode()) > PATH_LENGTH_MAX:
            self.note(field, text, f"a path of at most {PATH_LENGTH_MAX} bytes")
            return None
        return path

    def _reference(self, text: str) -> Path | None:
        """Return the word for a registered base as it stands; None for a path."""
        try:
            return Path(text) if base_reference(text) else None
        except ValueError:
            self.note("base", text, BASE_RULE)
            return Path(text)

    def _jail(self, table: Mapping[str, object], link: Path | None) -> Jail | None:
        if "jail" not in table:
            return None
        jail = read_jail(table["jail"], self._required_path, self.note)
        if jail is not None and jail.path == link:
            self.note("jail.node", str(jail.path), "another path than the link's")
        return jail

    def _required_path(self, table: Mapping[str, object], field: str) -> Path | None:
        return self._path(table, field, required=True)

    def _chunk_size(self, table: Mapping[str, object], driver: DriverChoice) -> Bytes:
        """Read the size of a chunk; only a dm-snapshot has chunks."""
        field, default = "chunk_size", DEFAULT_CHUNK
        if field not in table:
            return default
        if driver is DriverChoice.CLONE:
            self.note(field, table[field], "nothing with driver 'clone', which has no chunks")
            return default
        try:
            size = _bytes_of(table[field])
            if size.count in CHUNK_SIZES:
                return size
        except UnitError:
            pass
        allowed = ", ".join(f"{size >> 10}KiB" for size in CHUNK_SIZES)
        self.note(field, table[field], f"{allowed}, or one of these in bytes")
        return default

    def _disk_size(self, table: Mapping[str, object]) -> Bytes | None:
        """Read how large a disk is to be; whether its base is smaller is asked elsewhere."""
        if "size" not in table:
            return None
        try:
            size = _bytes_of(table["size"])
            if size.count and size.count % SECTOR_BYTES == 0:
                return size
        except UnitError:
            pass
        allowed = f"bytes, or text such as '4GiB': a multiple of {SECTOR_BYTES}, not below the base"
        self.note("size", table["size"], allowed)
        return None

    def _size(self, table: Mapping[str, object], field: str, chunk: Bytes) -> Bytes | None:
        """Read a size in bytes or with a suffix, rounded up to whole chunks."""
        if field not in table:
            return None
        least = Bytes(max(COW_BYTES_MIN, COW_CHUNKS_MIN * chunk.count))
        try:
            size = _bytes_of(table[field])
            if size >= least:
                return size.rounded_up(chunk)
        except UnitError:
            pass
        most = Bytes(LARGEST_BYTES)
        self.note(field, table[field], f"bytes, or text such as '64MiB'; {least} to {most}")
        return None

    def _seconds(self, table: Mapping[str, object], field: str, default_s: float) -> float:
        found = table.get(field, default_s)
        number = found if isinstance(found, int | float) and found is not True else -1
        if 0 <= number <= BUSY_TIMEOUT_S_MAX and found is not False:
            return float(number)
        self.note(field, found, f"seconds, 0 to {BUSY_TIMEOUT_S_MAX:.0f}")
        return default_s

    def _truth(self, table: Mapping[str, object], field: str, *, default: bool = False) -> bool:
        found = table.get(field, default)
        if not isinstance(found, bool):
            self.note(field, found, "true, false")
        return found is True

    def _of_snapshots(self, table: Mapping[str, object], field: str, driver: DriverChoice) -> bool:
        """Read what only a dm-snapshot can do; a clone's loop device passes discards by itself."""
        found = self._truth(table, field)
        if found and driver is DriverChoice.CLONE:
            self.note(field, found, "nothing with driver 'clone', which has no CoW file")
        return found

    def _choice(self, table: Mapping[str, object], field: str, kind: type[E], default: E) -> E:
        if field not in table:
            return default
        text = table[field]
        members: dict[str, E] = _members(kind)
        if isinstance(text, str) and text in members:
            return members[text]
        self.note(field, text, ", ".join(members))
        return default

    def note(self, field: str, found: object, allowed: str) -> None:
        self.faults.append(
            SpecFault(
                source=self._source, disk=self._disk, field=field, found=found, allowed=allowed
            )
        )


@functools.cache
def _members(kind: type[E]) -> dict[str, E]:
    """Return the members of an enum by their text; to ask each for it takes ten times as long."""
    return {member.value: member for member in kind}


def _bytes_of(found: object) -> Bytes:
    if isinstance(found, str):
        return Bytes.parse(found)
    if isinstance(found, int):
        return Bytes(found)
    raise UnitError("a size is a number or text")  # not what was found: it may be immense


FIELDS: Final = (
    *(field.name for field in attrs.fields(DiskSpec) if field.name != "lifetime"),
    *lifetime.FIELDS,
)

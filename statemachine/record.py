"""The record: one disk as its events say, and how that is kept as JSON.

`projection` says what an event makes of it. Whoever only reads records needs no event, and so no
class of a payload.

Pure; may be imported by everything above.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Final

import attrs

from statemachine.codec import to_data
from statemachine.fileidentity import FileIdentity
from statemachine.lineage import Parent, Point, Rewind
from statemachine.machine import Desired, State, is_met
from statemachine.plight import Failure, Fault, Frozen, Held, InFlight, Lapsed
from statemachine.quickread import structure
from statemachine.spec import DiskSpec
from statemachine.units import Bytes


@attrs.frozen(kw_only=True, slots=False)
class Record:
    """One disk, as its events say. Times are UTC in ns.

    Not slotted: every event makes a new one, and a dict of forty fields is copied at once.
    """

    name: str
    id: str
    generation: int
    version: int
    seq: int
    state: State
    state_since: int
    spec: dict[str, str]
    base: FileIdentity
    """The pin: which base, and which content."""
    base_boot_id: str
    """The boot in which the pin was taken; its `device` is of that boot."""
    device_name: str
    boot_id: str
    """The boot in which its state was last seen to change."""
    correlation_id: str
    """The request, or the drift, that this disk's next events belong to."""
    created_at: int
    updated_at: int
    declared_seq: int
    driver: str = ""
    driver_reason: str = ""
    cow_path: str = ""
    cow: FileIdentity | None = None
    cow_boot_id: str = ""
    """The boot in which `cow` was taken."""
    cow_method: str = ""
    cow_next: FileIdentity | None = None
    """A smaller store beside `cow`, until it has its name."""
    sparsify_due: bool = False
    """Whether a paused disk's CoW file is to be made smaller."""
    device: str = ""
    device_number: str = ""
    base_loop: int | None = None
    cow_loop: int | None = None
    link: str = ""
    link_target: str = ""
    links_begun: tuple[str, ...] = ()
    """Links that an attempt set out to make, since the last transition that was completed."""
    link_from: str = ""
    """The disk that the wanted link was taken over from."""
    link_taken: str = ""
    """Where that link leads until it leads here."""
    jail_node: str = ""
    jail_number: str = ""
    nodes_begun: tuple[str, ...] = ()
    """The same as `links_begun`, for nodes in jails."""
    made_folders: tuple[str, ...] = ()
    attempts: int = 0
    in_flight: InFlight | None = None
    failure: Failure | None = None
    fault: Fault | None = None
    frozen: Frozen | None = None
    held: Held | None = None
    parent: Parent | None = None
    """Which disk it was forked off."""
    points: tuple[Point, ...] = ()
    """Which points of it are kept, the oldest first."""
    rewind: Rewind | None = None
    """The point that it goes back to as soon as it is paused."""
    expires_at: int | None = None  # when its time is over
    lapsed: Lapsed | None = None
    cow_level: int = 0
    """The highest fill level of the exception store that was told of, in percent."""

    @functools.cached_property
    def wanted(self) -> DiskSpec:
        """The spec as it was last declared."""
        return _spec_of(tuple(self.spec.items()))

    @functools.cached_property
    def desired(self) -> Desired:
        """What the disk should be."""
        return _desired(self.spec["state"])

    @property
    def cow_file(self) -> Path:
        """`cow_path` as a path."""
        return _path_of(self.cow_path)

    @property
    def is_met(self) -> bool:
        """Whether it is what is desired, its data too."""
        return self.rewind is None and is_met(self.state, self.desired)

    @property
    def size(self) -> Bytes:
        """How large the disk is to be: as its base, unless the spec says more."""
        wanted = self.wanted.size
        return self.base.size if wanted is None else max(self.base.size, wanted)

    @property
    def expect(self) -> tuple[int, int]:
        """(generation, version): what an append decided upon this record must name."""
        return (self.generation, self.version)


def to_row(record: Record) -> dict[str, Any]:
    """Return a record as plain data; `from_row` reads it back."""
    return to_data(record)


def to_text(record: Record) -> str:
    """Return a record as the column `record` has it: JSON, sorted keys, compact."""
    return _ENCODER.encode(to_row(record))


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), sort_keys=True)


def from_row(data: dict[str, Any]) -> Record:
    """Return plain data as a record; raises ValueError when it does not fit."""
    return structure(data, Record)


@functools.lru_cache(maxsize=1024)
def _spec_of(items: tuple[tuple[str, str], ...]) -> DiskSpec:
    """Read a spec once for all records that have it."""
    return DiskSpec.from_data(dict(items))


_desired: Final = functools.cache(Desired)  # the class itself looks by three calls
_path_of: Final = functools.lru_cache(maxsize=1024)(Path)

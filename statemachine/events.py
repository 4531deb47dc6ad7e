"""What has happened: event types, their payloads, the versioned codec and the hash chain's bytes.

An event is a fact in the past tense. Its `data` is JSON with the payload's schema version as
`"v"`; an older version is upcast when it is read, a newer or unknown one is kept as it is and
reported, never dropped.

Pure: it computes bytes and hashes and reads no clock. May be imported by projection, eventlog,
history and everything in `reconciler`.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import json
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from statemachine import shorthand
from statemachine.errors import LogDamaged

GENESIS: Final = "0" * 64
"""The `prev_hash` of the first event."""

Data = Mapping[str, Any]

"""JSON as Python reads it; the one place where its shape is not known statically."""
CORRELATION_BYTES: Final = 8
"""How much chance is in a correlation id; ten million of them are all different but once in 400,000
times."""


class EventType(enum.StrEnum):
    """Every type that this version writes."""

    DISK_DECLARED = "disk.declared"
    TRANSITION_STARTED = "transition.started"
    TRANSITION_COMPLETED = "transition.completed"
    TRANSITION_FAILED = "transition.failed"
    DRIFT_DETECTED = "drift.detected"
    DISK_FAULTED = "disk.faulted"
    DISK_RECOVERED = "disk.recovered"
    DISK_HELD = "disk.held"
    COW_THRESHOLD_CROSSED = "cow.threshold_crossed"
    COW_GROWN = "cow.grown"
    DISK_FROZEN = "disk.frozen"
    DISK_THAWED = "disk.thawed"
    DISK_EXPORTED = "disk.exported"
    DISK_CHECKPOINTED = "disk.checkpointed"
    DISK_POINTS_DROPPED = "disk.points_dropped"
    ORPHAN_FOUND = "orphan.found"
    ORPHAN_RESOLVED = "orphan.resolved"
    LOG_RESTORED = "log.restored"
    HOST_BOOTED = "host.booted"
    RECONCILER_STARTED = "reconciler.started"
    RECONCILER_STOPPED = "reconciler.stopped"
    LOG_ARCHIVED = "log.archived"
    BASE_ADDED = "base.added"
    BASE_VERIFIED = "base.verified"
    BASE_REMOVED = "base.removed"


@attrs.frozen(kw_only=True)
class NewEvent:
    """An event before the log has given it its place.

    Attributes:
        disk: a disk's name, or `names.HOST`.
        expect: (generation, version) of the record this was decided upon, (0, 0) for a disk that
            has none; None for host events, which nobody competes for.
        generation: the generation it belongs to, 0 for the current one; a declaration with one
            more than the current one begins the next.
        data: the payload without "v".
        payload: what `data` was made of, where that is at hand; saves reading it again.
    """

    disk: str
    type: EventType
    data: Data
    actor: str
    expect: tuple[int, int] | None = None
    generation: int = 0
    reason: str = ""
    correlation_id: str = ""
    payload: object = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen(slots=False)  # of millions, each for a moment: made in half the time
class Event:
    """A row of the log, in the order of its columns.

    `at` is UTC in nanoseconds; `data_text` is the column `data`, the very JSON that was hashed.
    """

    seq: int
    disk: str
    generation: int
    version: int
    type: str
    at: int
    actor: str
    reason: str
    correlation_id: str
    boot_id: str
    data_text: str
    prev_hash: str
    hash: str

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> Event:
        """Return a row of the database, in the order of its columns, as an event."""
        return cls(*row)

    def columns(self) -> tuple[Any, ...]:
        """Return the row as the database has it; the hash is the last column."""
        return _columns(self)

    @property
    def data(self) -> Data:
        """The payload, upcast to the newest schema version that this program knows.

        Raises ValueError when it is no JSON object, or its schema version no whole number.
        """
        try:
            return read_data(self.type, self.data_text, actor=self.actor)
        except ValueError as error:
            raise ValueError(f"event {self.seq}: {error}") from error


_decode: Final = json.JSONDecoder().raw_decode
"""`json.loads` looks for spaces before and behind as well, which costs a fifth."""


def read_data(event_type: str, text: str, *, actor: str) -> Data:
    """Read the column `data`: as the newest version has it, with what was left out.

    Raises:
        ValueError: it is no JSON object, or its schema version no whole number.
    """
    data = json_object(text, "its data")
    shorthand.fill_in(data, actor=actor)
    return upcast(event_type, data)


def json_object(text: str, what: str) -> dict[str, Any]:
    """Read the text of a JSON object; raises ValueError that begins with `what` it should be."""
    try:
        data, end = _decode(text)
    except RecursionError as error:
        raise ValueError(f"{what} is nested too deeply") from error
    if end != len(text) or type(data) is not dict:
        raise ValueError(f"{what} is no JSON object")
    return data


_columns: Final = operator.attrgetter(*(attribute.name for attribute in attrs.fields(Event)))


_quoted: Final = json.encoder.encode_basestring
"""A text as JSON has it, without ASCII escapes; a whole encoder costs more than the hash."""


def canonical_bytes(columns: tuple[int | str, ...]) -> bytes:
    """Return what the hash covers: all columns but the hash, as a JSON array.

    Compact separators, no ASCII escapes, UTF-8, in the order of the columns; `data` is the text
    of its JSON, as a string.

    Raises:
        TypeError, ValueError: there is something else among them than whole numbers and texts.
    """
    parts = [_quoted(each) if isinstance(each, str) else f"{each:d}" for each in columns]
    return f"[{','.join(parts)}]".encode()


def chain_hash(columns: tuple[Any, ...]) -> str:
    """Return the hash of an event: SHA-256 over its canonical bytes, in hex.

    Written out, as every event of a log is hashed when it is verified: `canonical_bytes` of these
    columns is the same, and takes twice as long.

    Raises:
        TypeError, ValueError: a column is not what it should be.
    """
    seq, disk, generation, version, kind, at, actor, reason, story, boot, data, prev = columns
    text = (
        f"[{seq:d},{_quoted(disk)},{generation:d},{version:d},{_quoted(kind)},{at:d},"
        f"{_quoted(actor)},{_quoted(reason)},{_quoted(story)},{_quoted(boot)},"
        f"{_quoted(data)},{_quoted(prev)}]"
    )
    return hashlib.sha256(text.encode()).hexdigest()


def is_intact(event: Event) -> bool:
    """Tell whether an event's hash is that of its columns."""
    try:
        return chain_hash(event.columns()[:-1]) == event.hash
    except (TypeError, ValueError):  # a torn page may hold anything in the place of a text
        return False


def check_hash(event: Event) -> None:
    """Check that an event is what was written; raises LogDamaged with its seq."""
    if not is_intact(event):
        msg = f"event {event.seq} is not what was written: its hash does not fit"
        hint = "`byre log verify` finds the first bad event; nothing was changed"
        raise LogDamaged(msg, seq=event.seq, hint=hint)


def encode(event_type: EventType, data: Data, *, actor: str) -> str:
    """Return the JSON text of a payload: sorted keys, compact, with its schema version.

    What `actor` and the trigger say is not said once more; reading an event puts it back.
    """
    short = shorthand.shorten(data, actor=actor)
    short["v"] = SCHEMA_VERSIONS.get(event_type, 1)
    return _ENCODER.encode(short)


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=False)


Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

SCHEMA_VERSIONS: Final[dict[str, int]] = {
    EventType.DISK_DECLARED: 3,
    EventType.TRANSITION_STARTED: 2,
    EventType.TRANSITION_COMPLETED: 3,
    EventType.TRANSITION_FAILED: 2,
}
"""The newest schema version of each type that has more than one."""


def _as_it_is(data: dict[str, Any]) -> dict[str, Any]:
    """Upcast what the newer version reads as it was meant: it only may say less."""
    return data


def _with_the_cow_told(data: dict[str, Any]) -> dict[str, Any]:
    """Upcast an outcome of version 1, which had the whole file whenever it was the disk's own."""
    if "cow" in data or data.get("target") == "removed":
        return data
    return {**data, "cow_is_other": True}


UPCASTERS: Final[dict[tuple[str, int], Upcaster]] = {
    (EventType.DISK_DECLARED, 1): _as_it_is,
    (EventType.DISK_DECLARED, 2): _as_it_is,
    (EventType.TRANSITION_STARTED, 1): _as_it_is,
    (EventType.TRANSITION_COMPLETED, 1): _with_the_cow_told,
    (EventType.TRANSITION_COMPLETED, 2): _as_it_is,
    (EventType.TRANSITION_FAILED, 1): _as_it_is,
}
"""(type, version) → how to make the next version of that payload."""


def upcast(event_type: str, data: dict[str, Any]) -> dict[str, Any]:
    """Bring a payload to the newest version this program knows, one version at a time.

    A payload that is newer than this program is returned as it is.

    Raises:
        ValueError: its schema version is no whole number, or its fields are not those of it.
    """
    version = _version(data)  # it must have one, whatever it is
    if (event_type, version) not in UPCASTERS:
        return data
    current = data
    while (step := UPCASTERS.get((event_type, _version(current)))) is not None:
        current = {**step(current), "v": _version(current) + 1}
    return current


def _version(data: Data) -> int:
    version = data.get("v", 1)
    if isinstance(version, bool) or not isinstance(version, int):
        msg = f"a schema version is a whole number, not {version!r:.80}"
        raise ValueError(msg)  # noqa: TRY004 - one error for all that does not fit
    return version


@functools.cache
def known_types() -> frozenset[str]:
    """Return the types that this version understands."""
    return frozenset(member.value for member in EventType)


def is_known(event: Event) -> bool:
    """Tell whether this program understands an event's type and schema version.

    One whose data is no payload at all is not understood either.
    """
    try:
        version = _version(event.data)
    except ValueError:
        return False
    return event.type in known_types() and version <= SCHEMA_VERSIONS.get(event.type, 1)

"""The codec of the log against any row: events and records."""

from __future__ import annotations

from typing import Final

import attrs

from statemachine import payloads, projection
from statemachine.diskrows import read_record as record_of
from statemachine.errors import LogDamaged
from statemachine.events import GENESIS, Event, EventType, chain_hash, encode, is_known
from statemachine.record import from_row, to_row

TYPES: Final = (*(member.value for member in EventType), "of.another-version")


def event_of(data: bytes) -> Event:
    """Return the event whose type is the first byte and whose data is the rest."""
    kind = TYPES[(data[0] if data else 0) % len(TYPES)]
    return Event(
        seq=1,
        disk="sb-1",
        generation=1,
        version=1,
        type=kind,
        at=1,
        actor="fuzz",
        reason="",
        correlation_id="",
        boot_id="",
        data_text=data[1:].decode("utf-8", "replace"),
        prev_hash=GENESIS,
        hash="",
    )


def read_event(data: bytes) -> None:
    """Read a row of `events`; what fits its class is written and read back."""
    event = event_of(data)
    assert len(chain_hash(event.columns()[:-1])) == len(GENESIS)
    is_known(event)
    try:
        payload = payloads.read(event)
        record = projection.apply(None, event)
    except ValueError:
        return
    if record is not None:
        assert from_row(to_row(record)) == record
    if payload is not None:
        text = encode(EventType(event.type), payloads.to_data(payload), actor=event.actor)
        again = attrs.evolve(event, data_text=text)
        assert is_known(again)
        assert payloads.read(again) == payload


def read_record(data: bytes) -> None:
    """Read a row of `disks`."""
    try:
        record = record_of(data.decode("utf-8", "replace"))
    except LogDamaged:
        return
    assert from_row(to_row(record)) == record

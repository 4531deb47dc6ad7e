"""What a record will be once an event of it is in the log, for who decides the event after it.

An outcome and the next intent can then be one commit. The log decides whether it comes so: if
somebody else's event came between, the second one's `expect` is wrong, and both are refused.

Pure; may be imported by `reconciler`.
"""

from __future__ import annotations

from statemachine import projection
from statemachine.events import Event, NewEvent, encode
from statemachine.record import Record


def foresee(record: Record, new: NewEvent, *, at: int, boot_id: str) -> Record:
    """Return a record as it will be after an event that is not in the log yet.

    Args:
        record: what the event was decided upon.
        new: the event; of this disk and generation.
        at: about when it will be stored, UTC in ns; the time in the log is another.
        boot_id: this boot.
    """
    assert new.expect == record.expect, "the event is the record's next"
    event = Event(
        seq=record.seq + 1,
        disk=new.disk,
        generation=record.generation,
        version=record.version + 1,
        type=new.type.value,
        at=at,
        actor=new.actor,
        reason=new.reason,
        correlation_id=new.correlation_id,
        boot_id=boot_id,
        # Read by nobody where the payload is at hand.
        data_text="" if new.payload else encode(new.type, new.data, actor=new.actor),
        prev_hash="",
        hash="",
    )
    after = projection.apply(record, event, new.payload)
    assert after is not None, "a disk with a record keeps it"
    return after

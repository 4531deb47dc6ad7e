"""Events as tests append them."""

from __future__ import annotations

from pathlib import Path

from statemachine import payloads
from statemachine.events import EventType, NewEvent
from statemachine.fileidentity import FileIdentity
from statemachine.machine import Desired
from statemachine.names import HOST, disk_name
from statemachine.spec import DiskSpec
from statemachine.units import Bytes

IDENTITY = FileIdentity(device=1, inode=2, size=Bytes(2**20), mtime_ns=3)


def declaration(name: str, state: Desired = Desired.LIVE) -> NewEvent:
    """Return the first declaration of a disk."""
    spec = DiskSpec(name=disk_name(name), base=Path("/srv/base.ext4"), state=state)
    payload = payloads.DiskDeclared(
        id="0" * 32, spec=spec.to_data(), device_name=f"byre-{name}", base=IDENTITY
    )
    return NewEvent(
        disk=name,
        type=EventType.DISK_DECLARED,
        data=payloads.to_data(payload),
        actor="tester",
        expect=(0, 0),
        generation=1,
    )


def of_disk(name: str, payload: object, *, generation: int = 1) -> NewEvent:
    """Return an event of a declared disk that is appended whatever its version is."""
    return NewEvent(
        disk=name,
        type=payloads.type_of(payload),
        data=payloads.to_data(payload),
        actor="tester",
        generation=generation,
    )


def host_event(why: str = "stop") -> NewEvent:
    """Return an event of the host."""
    payload = payloads.ReconcilerStopped(pid=1, why=why)
    return NewEvent(
        disk=HOST,
        type=EventType.RECONCILER_STOPPED,
        data=payloads.to_data(payload),
        actor="tester",
    )

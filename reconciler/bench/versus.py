"""The same events in byre's log and in the package `eventsourcing`, both on SQLite.

Three things are compared, each durable on both sides (WAL, `synchronous` FULL): many threads that
append one event at a time, which is what disks do that change at once; one thread that appends one
event at a time, and many in one transaction; and the state of one disk of many events. Whether the
last is read from a record that the log moves along, or made of all events, is the choice of each;
what byre takes to make it of the events is told beside it.
May be imported by the package only.
"""

from __future__ import annotations

import functools
import importlib.util
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from reconciler.bench.plan import Plan
from reconciler.bench.results import Measured, Series, quantile
from reconciler.bench.stopwatch import timed_s
from reconciler.bench.yard import Yard
from statemachine import payloads
from statemachine.diskrows import read_record
from statemachine.eventlog import EventLog
from statemachine.events import NewEvent
from statemachine.fileidentity import FileIdentity
from statemachine.machine import State, Trigger
from statemachine.names import LOG_NAME
from statemachine.roster import replay
from statemachine.units import Bytes

PACKAGE: Final = "eventsourcing"
WRITERS: Final = 64
LIFE_EVENTS: Final = 200
"""How many events the disk has whose state is asked for."""
AT_ONCE: Final = 100
_ACTOR: Final = "reconciler"


def missing() -> str:
    """Say that the package is not installed; "" if it is."""
    if importlib.util.find_spec(PACKAGE) is None:
        return f"the package {PACKAGE} is not installed; the dependency group `dev` has it"
    return ""


def measure(yard: Yard, plan: Plan) -> Mapping[str, Measured]:
    """Append the same events to both, and ask both for the state of one disk."""
    plan.tell(f"appends to byre's log and with {PACKAGE}, in turn")
    samples: dict[str, list[float]] = {}
    for number in range(plan.rounds):
        folder = yard.folder / f"versus-{number}"
        folder.mkdir()
        with EventLog(folder / LOG_NAME, boot_id=secrets.token_hex(16)) as log:
            _note(samples, "byre", _measured(_Ours(log), plan))
        from reconciler.bench import peerlog  # noqa: PLC0415 - only where it is installed

        peer = peerlog.PeerLog(folder / "peer.db", writers=WRITERS)
        try:
            _note(samples, PACKAGE, _measured(_Theirs(peer), plan))
        finally:
            peer.close()
    medians = {name: quantile(values, 50) for name, values in samples.items()}
    values = {
        "append": medians[f"byre, {_MANY}"] / medians[f"{PACKAGE}, {_MANY}"],
        "state": medians[f"{PACKAGE}, {_STATE}"] / medians[f"byre, {_STATE}"],
    }
    series = [
        Series(name=name, unit="ms" if _is_time(name) else "events/s", samples=_told(name, some))
        for name, some in sorted(samples.items())
    ]
    note = f"a disk of {LIFE_EVENTS} events; {AT_ONCE} events a transaction where many are"
    return {"versus": Measured(values=values, series=tuple(series), notes=(note,))}


_MANY: Final = f"{WRITERS} writers, an event a commit"
_ONE: Final = "1 writer, an event a commit"
_BULK: Final = "1 writer, many events a commit"
_STATE: Final = "state of a disk"
_FROM_EVENTS: Final = "state, from all events"


def _is_time(name: str) -> bool:
    return name.endswith((_STATE, _FROM_EVENTS))


def _told(name: str, some: list[float]) -> tuple[float, ...]:
    return tuple(round(each * 1e3, 3) if _is_time(name) else round(each) for each in some)


def _note(samples: dict[str, list[float]], who: str, found: Mapping[str, float]) -> None:
    for name, value in found.items():
        samples.setdefault(f"{who}, {name}", []).append(value)


class _Side(Protocol):
    """One of both: appends events of a disk, and says what it takes to know a disk."""

    def declare(self, name: str) -> Any:  # noqa: ANN401 - what each side knows a disk by
        """Make a disk."""

    def append(self, disk: Any, count: int) -> None:  # noqa: ANN401 - the same
        """Append so many events of it in one transaction."""

    def states(self, disk: Any) -> Mapping[str, Callable[[], object]]:  # noqa: ANN401 - the same
        """Return the ways to know what it is."""


def _measured(side: _Side, plan: Plan) -> dict[str, float]:
    """Return events a second, and seconds for the state of a disk."""
    disks = [side.declare(f"sb-{number:04}") for number in range(WRITERS)]
    writers = [threading.Thread(target=_append, args=(side, disk, plan.appends)) for disk in disks]
    many_s = timed_s(lambda: _run(writers))
    one_s = timed_s(lambda: _append(side, disks[0], plan.appends))
    lived = side.declare("sb-lived")
    bulk_s = timed_s(lambda: _append(side, lived, LIFE_EVENTS // AT_ONCE, at_once=AT_ONCE))
    found = {
        _MANY: WRITERS * plan.appends / many_s,
        _ONE: plan.appends / one_s,
        _BULK: LIFE_EVENTS / bulk_s,
    }
    return found | {name: timed_s(work) for name, work in side.states(lived).items()}


def _run(writers: list[threading.Thread]) -> None:
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()


def _append(side: _Side, disk: Any, commits: int, at_once: int = 1) -> None:  # noqa: ANN401 - what the side made
    for _ in range(commits):
        side.append(disk, at_once)


def _payload() -> payloads.TransitionCompleted:
    return payloads.TransitionCompleted(
        trigger=Trigger.RESTORE,
        source=State.PAUSED,
        target=State.RESTORED,
        unchanged=("CheckBase", "CheckCow"),
        device="/dev/mapper/byre-sb-0001",
        device_number="253:7",
        base_loop=0,
        cow_loop=7,
        duration_ns=12_345_678,
    )


class _Ours(_Side):
    """byre's log."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def declare(self, name: str) -> str:
        """Declare a disk."""
        pin = FileIdentity(device=1, inode=2, size=Bytes(1 << 26), mtime_ns=3)
        spec = {"name": name, "base": "/srv/images/base.img", "state": "live", "driver": "auto"}
        first = payloads.DiskDeclared(
            id=secrets.token_hex(16), spec=spec, device_name=f"byre-{name}", base=pin
        )
        self._log.append([_event(name, first)])
        return name

    def append(self, disk: str, count: int) -> None:
        """Append through the queue that all threads share."""
        self._log.append([_event(disk, _payload()) for _ in range(count)])

    def states(self, disk: str) -> Mapping[str, Callable[[], object]]:
        """Read the record as a new process does; and replay the disk's events."""
        query = "SELECT record FROM disks WHERE name = ?"

        def from_events() -> object:
            return replay(self._log.select("WHERE disk = ? ORDER BY generation, version", disk))

        def from_record() -> object:
            return read_record(self._log.rows(query, disk)[0][0])

        return {_STATE: from_record, _FROM_EVENTS: from_events}


def _event(disk: str, payload: object) -> NewEvent:
    return NewEvent(
        disk=disk,
        type=payloads.type_of(payload),
        data=payloads.to_data(payload),
        actor=_ACTOR,
        generation=1,
        correlation_id=secrets.token_hex(8),
    )


class _Theirs(_Side):
    """The package's application."""

    def __init__(self, peer: Any) -> None:  # noqa: ANN401 - its class cannot be named without it
        self._peer = peer

    def declare(self, name: str) -> Any:  # noqa: ANN401 - the same
        """Make an aggregate."""
        return self._peer.declare(name)

    def append(self, disk: Any, count: int) -> None:  # noqa: ANN401 - the same
        """Save some events at once."""
        self._peer.append(disk, [self._columns() for _ in range(count)])

    def states(self, disk: Any) -> Mapping[str, Callable[[], object]]:  # noqa: ANN401 - the same
        """Get the aggregate from the repository, as any caller does."""
        return {_STATE: functools.partial(self._peer.rebuild, disk.id)}

    @staticmethod
    def _columns() -> Mapping[str, object]:
        return {
            "type": "transition.completed",
            "actor": _ACTOR,
            "reason": "",
            "correlation_id": secrets.token_hex(8),
            "boot_id": "0" * 32,
            "data": payloads.to_data(_payload()),
        }

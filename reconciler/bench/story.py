"""A log as hosts write it, of any length: the lives of many disks, told by the real payloads.

So many disks exist at any time; each is made, paused and restored some fifteen times, and removed,
and then another one is, mostly under a new name. Devices are busy now and then, vanish by hand, or
fill up; once in a while the host boots anew and all of them are lost and restored. What an event
says is what `recording` and `declare` would have said; places, hashes and records are the log's own
work. The same seed tells the same story. May be imported by the package and tests.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Iterator
from typing import Any, Final

import attrs

from reconciler import recording
from statemachine import payloads
from statemachine.eventlog import EventLog
from statemachine.events import NewEvent
from statemachine.fileidentity import FileIdentity
from statemachine.machine import LIVE, Desired, State, Trigger
from statemachine.names import HOST
from statemachine.stories import Scribe, Told
from statemachine.units import Bytes

EVENTS_AT_ONCE: Final = 5_000
"""How many events are in one transaction; bounds the memory."""
_FIRST_NS: Final = 1_735_689_600_000_000_000  # 2025-01-01
_STEP_NS: Final = 3_000_000_000
"""The mean time between two steps: ten million events are about a year."""
_BASES: Final = tuple(f"/srv/images/{name}.ext4" for name in ("ubuntu-24.04", "debian-12", "ci"))
_USERS: Final = (("orchestrator", 990), ("ops", 1000), ("root", 0))
_MIB: Final = 1 << 20
_CAPACITY: Final = 2048 * _MIB

# How seldom something happens: once in so many times.
_REMOVED: Final = 15
_SAME_NAME: Final = 10
_BUSY: Final = 20
_LOST: Final = 25
_FILLED: Final = 10
_FAULTED: Final = 200
_BOOTED: Final = 100_000
_Step = list[NewEvent]


class Story:
    """A story that goes on for ever; `told` yields it moment by moment."""

    def __init__(self, *, disks: int, seed: int = 1) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a story, not a secret
        self._at = _FIRST_NS
        self._boot_id = self._uuid()
        self._numbers = itertools.count()
        self._inodes = itertools.count(1_000)
        self._slots = [_Slot(self) for _ in range(disks)]

    def told(self) -> Iterator[Told]:
        """Yield the moments of the story."""
        yield self._moment([self._host(payloads.HostBooted(root_id="0" * 16, kernel="6.12.0"))])
        yield self._moment([self._host(payloads.ReconcilerStarted(pid=812, version="0.1.0"))])
        while True:
            if self.happens(_BOOTED):
                yield from self._boot()
            yield self._moment(next(self._random.choice(self._slots).steps))

    def _boot(self) -> Iterator[Told]:
        """Boot: every live disk is lost, and comes back."""
        yield self._moment([self._host(payloads.ReconcilerStopped(pid=812, why="SIGTERM"))])
        before, self._boot_id = self._boot_id, self._uuid()
        booted = payloads.HostBooted(root_id="0" * 16, kernel="6.12.0", previous_boot_id=before)
        yield self._moment([self._host(booted)])
        yield self._moment([self._host(payloads.ReconcilerStarted(pid=799, version="0.1.0"))])
        for slot in self._slots:
            for step in slot.life.healed("reboot") if slot.life.state in LIVE else ():
                yield self._moment(step)

    def _moment(self, events: _Step) -> Told:
        self._at += int(self._random.expovariate(1 / _STEP_NS))
        return Told(at=self._at, boot_id=self._boot_id, events=events)

    def _host(self, payload: object) -> NewEvent:
        return attrs.evolve(recording.event(HOST, payload), correlation_id=self._hex(16))

    # --- what lives ask for ----------------------------------------------------------------------

    def _hex(self, digits: int) -> str:
        return f"{self._random.getrandbits(digits * 4):0{digits}x}"

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128)))

    def life(self, before: _Life | None) -> _Life:
        """Begin the next life of a slot: mostly of a new disk, else the name's next generation."""
        if before is not None and self.happens(_SAME_NAME):
            return _Life(self, before.name, before.id, before.generation + 1)
        return _Life(self, f"sb-{next(self._numbers):06d}", self._hex(32), 1)

    def happens(self, once_in: int) -> bool:
        """Tell whether something happens that does once in so many times."""
        return self._random.randrange(once_in) == 0

    def number(self, below: int) -> int:
        """Return some number."""
        return self._random.randrange(below)

    def file(self, size: int) -> FileIdentity:
        """Return a new file."""
        return FileIdentity(
            device=66_305, inode=next(self._inodes), size=Bytes(size), mtime_ns=self._at
        )

    def touched(self, file: FileIdentity) -> FileIdentity:
        """Return the same file, written to."""
        return attrs.evolve(file, mtime_ns=self._at)

    def request(self) -> str:
        """Return a new correlation id."""
        return self._hex(16)


class _Slot:
    """A place for one disk at a time; `steps` goes through one life after the other."""

    def __init__(self, story: Story) -> None:
        self.life = story.life(None)
        self.steps = self._go_on(story)

    def _go_on(self, story: Story) -> Iterator[_Step]:
        while True:
            yield from self.life.lived()
            self.life = story.life(self.life)


class _Life:
    """One generation of a disk, from its declaration to its removal."""

    def __init__(self, story: Story, name: str, identity: str, generation: int) -> None:
        self._story = story
        self.name, self.id, self.generation = name, identity, generation
        self.state = State.ABSENT
        base = _BASES[story.number(len(_BASES))]
        self._base = FileIdentity(
            device=66_305, inode=12 + len(base), size=Bytes(1024 * _MIB), mtime_ns=_FIRST_NS
        )
        self._spec = {"name": name, "base": base, "driver": "auto"}
        self._spec["link"] = f"/srv/vm/{name}/rootfs.link"
        self._cow_path = f"/var/lib/byre/cow/{identity}-{generation}.cow"
        self._cow = self._base
        self._correlation_id = ""
        self._loop = story.number(2000)

    def lived(self) -> Iterator[_Step]:
        """Yield the whole life, step by step."""
        yield self._declared(Desired.LIVE, why="declared")
        yield from self._moved(Trigger.ATTACH, State.ATTACHED)
        yield from self._moved(Trigger.SNAPSHOT, State.SNAPSHOTTED)
        while not self._story.happens(_REMOVED):
            yield from self._misfortune()
            yield self._declared(Desired.PAUSED, why="command")
            yield from self._moved(Trigger.PAUSE, State.PAUSED)
            yield self._declared(Desired.LIVE, why="command")
            yield from self._moved(Trigger.RESTORE, State.RESTORED)
        yield self._declared(Desired.REMOVED, why="command")
        yield from self._moved(Trigger.REMOVE, State.REMOVED)

    def healed(self, cause: str) -> Iterator[_Step]:
        """Yield how a device that is gone comes back."""
        shows = f"the dm device byre-{self.name} is not there"
        lost = payloads.DriftDetected(
            trigger=Trigger.LOSE,
            source=self.state,
            target=State.PAUSED,
            differences=(shows,),
            cause=cause,
        )
        self.state = State.PAUSED
        yield [self._event(lost)]
        yield from self._moved(Trigger.RESTORE, State.RESTORED)

    def _misfortune(self) -> Iterator[_Step]:
        story = self._story
        if story.happens(_LOST):
            yield from self.healed("")
        if story.happens(_FILLED):
            for percent in (50, 75):
                yield [
                    self._event(
                        payloads.CowThresholdCrossed(
                            percent=percent,
                            used_bytes=_CAPACITY * percent // 100 + 4096 * story.number(1000),
                            capacity_bytes=_CAPACITY,
                        )
                    )
                ]
        if story.happens(_FAULTED):
            told = f"{self._cow_path} could not be looked at: EIO"
            yield [self._event(payloads.DiskFaulted(kind="io-error", message=told, exit_code=1))]
            yield [self._event(payloads.DiskRecovered(was="faulted", by=self._by()))]

    def _declared(self, desired: Desired, *, why: str) -> _Step:
        self._correlation_id = self._story.request()
        before, self._spec = self._spec, {**self._spec, "state": desired.value}
        by = self._by()
        if why == "declared":
            payload = payloads.DiskDeclared(
                id=self.id,
                spec=self._spec,
                device_name=f"byre-{self.name}",
                base=self._base,
                by=by,
            )
        else:
            payload = payloads.DiskDeclared(**payloads.again(before, self._spec), by=by, why=why)
        return [attrs.evolve(self._event(payload), actor=by.user)]

    def _by(self) -> payloads.Requester:
        user, uid = _USERS[self._story.number(len(_USERS))]
        pid = 1000 + self._story.number(30_000)
        return payloads.Requester(uid=uid, user=user, pid=pid, command="byre")

    def _moved(self, trigger: Trigger, target: State) -> Iterator[_Step]:
        """Yield the intents and outcomes of one transition; now and then the first try fails."""
        if trigger is not Trigger.ATTACH and self._story.happens(_BUSY):
            yield [self._started(trigger, target, attempt=1)]
            yield [self._failed(trigger, target)]
            yield [self._started(trigger, target, attempt=2)]
        else:
            yield [self._started(trigger, target, attempt=1)]
        yield [self._completed(trigger, target)]
        self.state = target

    def _started(self, trigger: Trigger, target: State, *, attempt: int) -> NewEvent:
        return self._event(
            payloads.TransitionStarted(
                trigger=trigger,
                source=self.state,
                target=target,
                attempt=attempt,
                driver="dm-snapshot",
                cow_path=self._cow_path if trigger is Trigger.ATTACH else "",
                made_folders=(f"/srv/vm/{self.name}",) if trigger is Trigger.SNAPSHOT else (),
            )
        )

    def _failed(self, trigger: Trigger, target: State) -> NewEvent:
        device = f"/dev/mapper/byre-{self.name}"
        return self._event(
            payloads.TransitionFailed(
                trigger=trigger,
                source=self.state,
                target=target,
                consequence="transient",
                kind="busy",
                message=f"{self.name}: remove {device}: device is busy",
                attempt=1,
                errno=16,
                hint="it is tried again",
                action=f"remove dm device byre-{self.name}",
                retry_at=self._cow.mtime_ns,
                world=f"{self._story.number(1 << 62):016x}",
            )
        )

    def _completed(self, trigger: Trigger, target: State) -> NewEvent:
        story, live = self._story, target in LIVE
        told: dict[str, Any] = {}
        if trigger is Trigger.ATTACH:
            self._cow = story.file(_CAPACITY)
            told["cow"] = self._cow
        elif target is State.PAUSED:
            self._cow = story.touched(self._cow)
            told["cow_mtime_ns"] = self._cow.mtime_ns
        device = f"/dev/mapper/byre-{self.name}" if live else ""
        held = live or target is State.ATTACHED
        return self._event(
            payloads.TransitionCompleted(
                trigger=trigger,
                source=self.state,
                target=target,
                cow_method="sparse" if trigger is Trigger.ATTACH else "",
                device=device,
                device_number=f"253:{self._loop}" if live else "",
                base_loop=0 if held else None,
                cow_loop=self._loop if held else None,
                link=self._spec["link"] if live else "",
                duration_ns=2_000_000 + story.number(30_000_000),
                **told,
            )
        )

    def _event(self, payload: object) -> NewEvent:
        return NewEvent(
            disk=self.name,
            type=payloads.type_of(payload),
            data=payloads.to_data(payload),
            payload=payload,
            actor=recording.ACTOR,
            generation=self.generation,
            correlation_id=self._correlation_id,
        )


def write(log: EventLog, *, events: int, disks: int, seed: int = 1) -> None:
    """Write the first events of a story into a new log.

    Args:
        log: open for writing, without events.
        events: how many at the least; a few more, to the end of a moment.
        disks: how many there are at any time.
        seed: which story.
    """
    told = Story(disks=disks, seed=seed).told()
    scribe, left = Scribe(log), events
    while left > 0:
        left -= scribe.write(itertools.islice(told, min(left, EVENTS_AT_ONCE)))

"""Forking a disk: new disks on its base, each with a copy of its own file.

One look at the source is enough for all of them: it is copied once, and the others are copies of
that copy. All of a call's disks come to be or none does. Their files are there, whole and on disk,
before the log hears of them, in one step; a crash in between leaves files that `byre orphans` tells
of. The log learns of a disk that is paused, as it does of an imported one; if it is to be live, the
reconciler brings it there.

A fork has the spec of its source, but for its name, its state and what can only be one disk's: its
link and its node in a jail. May be imported by the API.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from reconciler.config import Settings
from reconciler.duplicate import Duplicate, Duplicator
from reconciler.points import Keeper
from reconciler.requester import request
from reconciler.root import Root
from reconciler.source import Sources, WhenLive
from statemachine import payloads
from statemachine.errors import NoSuchDisk, RefusedError, SpecError
from statemachine.eventlog import EventLog
from statemachine.events import NewEvent
from statemachine.fileidentity import FileIdentity
from statemachine.lineage import Parent
from statemachine.machine import Desired, State, Trigger
from statemachine.record import Record
from statemachine.spec import DiskSpec, DriverChoice
from statemachine.specreader import parse


@attrs.frozen(kw_only=True)
class Forked:
    """What one call made. `parents` says how each disk came about."""

    names: tuple[str, ...]
    parents: tuple[Parent, ...]

    @property
    def frozen_ns(self) -> int:
        """For how long the source was suspended."""
        return self.parents[0].frozen_ns


@attrs.frozen(kw_only=True)
class _New:
    """One disk that is to be made."""

    spec: DiskSpec
    before: Record | None
    id: str
    generation: int
    path: Path


class Forker:
    """Makes disks of other disks of one root.

    Args:
        log: open for writing.
        root: where files are.
        settings: for the names of new devices.
        sources: opens and judges the disks.
        reason: why; recorded.
        on_behalf_of: for whom, as the caller says; recorded as a claim.

    Raises:
        UsageError: the claim is no short plain text.
    """

    def __init__(
        self,
        log: EventLog,
        root: Root,
        settings: Settings,
        sources: Sources,
        *,
        reason: str = "",
        on_behalf_of: str = "",
    ) -> None:
        self._log = log
        self._root = root
        self._prefix = settings.device_prefix
        self._duplicator = Duplicator(sources=sources)
        self._keeper = Keeper(log, root, sources)
        self._request = request(reason, on_behalf_of)

    def fork(
        self, source: str, names: Sequence[str], *, state: Desired, when_live: WhenLive
    ) -> Forked:
        """Make disks of a disk, all or none.

        Args:
            source: a paused or a live disk; or a point of one, as "sb-1@clean".
            names: of the new ones; that of a removed disk begins its next generation.
            state: what they should be: live or paused.
            when_live: whether a live source is suspended for a moment, or refused.

        Raises:
            NoSuchDisk: there is no such source.
            SpecError: a name is none, or is there twice.
            RefusedError: a name is taken, or the source has nothing to fork.
            IdentityMismatch, PermanentError: its file or its base is missing or another one.
            TransientError: it is being changed just now.
            BlockedError: there is no room.
        """
        disk, _, point = source.partition("@")
        record = self._log.record(disk)
        if record is None:
            raise NoSuchDisk(source)
        if not point:
            self._duplicator.refuse(record, when_live=when_live)
        base = self._duplicator.base(record)
        news = self._news(record, names, state)
        with self._copies(record, point, [new.path for new in news]) as copies:
            parents = _parents(record, point, copies)
            events = [
                event
                for new, copy, parent in zip(news, copies, parents, strict=True)
                for event in self._events(record, new, copy, base, parent)
            ]
            self._log.append(events)
        return Forked(names=tuple(names), parents=parents)

    def _news(self, record: Record, names: Sequence[str], state: Desired) -> list[_New]:
        tables = [
            {"name": name, "base": str(record.wanted.base), "state": state.value} for name in names
        ]
        if state not in (Desired.LIVE, Desired.PAUSED):
            raise SpecError([f"fork: field 'state' is {state}; allowed is live or paused"])
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise SpecError([f"fork: {name!r} is there twice; allowed is once" for name in twice])
        checked = parse({"disk": tables}, source="fork", folder=Path.cwd())
        return [self._new(record, spec) for spec in checked]

    def _new(self, record: Record, named: DiskSpec) -> _New:
        before = self._log.record(named.name)
        if before is not None and before.state is not State.REMOVED:
            msg = f"there is a disk named {before.name}: it is {before.state}"
            raise RefusedError(msg, hint="give the new one another name, or remove that one")
        disk_id = before.id if before else secrets.token_hex(16)
        generation = before.generation + 1 if before else 1
        suffix = "img" if record.driver == DriverChoice.CLONE else "cow"
        return _New(
            spec=attrs.evolve(
                record.wanted, name=named.name, state=named.state, link=None, jail=None
            ),
            before=before,
            id=disk_id,
            generation=generation,
            path=self._root.cow(disk_id, generation, suffix),
        )

    @contextlib.contextmanager
    def _copies(
        self, record: Record, point: str, targets: Sequence[Path]
    ) -> Iterator[list[Duplicate]]:
        """Make the files; they are taken away again if the log does not get to hear of them."""
        made: list[Duplicate] = []
        try:
            for target in targets:
                if made:
                    made.append(self._duplicator.of_file(made[0].path, made[0].file, target))
                elif point:
                    made.append(self._keeper.copy_of(record, point, target))
                else:
                    made.append(self._duplicator.of_disk(record, target))
            yield made
        except BaseException:
            for copy in made:
                self._duplicator.drop(copy)
            raise

    def _events(
        self, record: Record, new: _New, copy: Duplicate, base: FileIdentity, parent: Parent
    ) -> tuple[NewEvent, NewEvent]:
        """Return how the log learns of a disk: wanted, and there."""
        declared = payloads.DiskDeclared(
            id=new.id,
            spec=new.spec.to_data(),
            device_name=f"{self._prefix}{new.spec.name}",
            base=base,
            by=self._request.by,
            why=payloads.FORKED,
            on_behalf_of=self._request.claim,
            forked_from=parent,
        )
        found = payloads.DriftDetected(
            trigger=Trigger.FIND,
            source=State.ABSENT,
            target=State.PAUSED,
            differences=(f"{copy.path.name} was made of {parent} by {copy.method}",),
            cow=copy.file,
            cow_path=str(copy.path),
            driver=record.driver,
        )
        first = NewEvent(
            disk=new.spec.name,
            type=payloads.type_of(declared),
            data=payloads.to_data(declared),
            actor=self._request.by.user,
            expect=new.before.expect if new.before else (0, 0),
            generation=new.generation,
            reason=self._request.reason,
            correlation_id=self._request.correlation_id,
        )
        data, kind = payloads.to_data(found), payloads.type_of(found)
        return first, attrs.evolve(first, type=kind, data=data, expect=None)


def _parents(record: Record, point: str, copies: Sequence[Duplicate]) -> tuple[Parent, ...]:
    frozen_ns = copies[0].frozen_ns
    return tuple(
        Parent(
            name=record.name,
            id=record.id,
            generation=record.generation,
            seq=record.seq,
            how=copy.method.value,
            frozen_ns=frozen_ns,
            point=point,
        )
        for copy in copies
    )

"""Kept points of a disk: making one, going back to one, letting go of some.

A point is a copy of the disk's own file (`duplicate`). It is there, whole and on disk, before the
log hears of it; a crash in between leaves a file that `byre orphans` tells of. It goes with its
disk, as a part of its removal, or when somebody drops it: then the log hears of that first, and the
files are deleted afterwards.

To go back is somebody's word, and the reconciler's work. A copy of the point is made beside the
disk, which may be live meanwhile. The log gets to know which file that is, in the declaration that
asks for it. Then the disk is paused if it must be, the copy takes the place of its own file in one
step (`rewind`), and it is restored. May be imported by forking and the API.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from reconciler import lapse
from reconciler.duplicate import Duplicate, Duplicator
from reconciler.requester import request
from reconciler.root import Root
from reconciler.source import Sources, WhenLive
from statemachine import lineage, payloads
from statemachine.errors import (
    IdentityMismatch,
    NoSuchDisk,
    PermanentError,
    RefusedError,
    TransientError,
    UsageError,
)
from statemachine.eventlog import EventLog
from statemachine.events import NewEvent
from statemachine.fileidentity import FileIdentity
from statemachine.lineage import Point, Rewind
from statemachine.machine import LIVE, Desired, State, Trigger
from statemachine.names import point_name
from statemachine.record import Record
from statemachine.spec import DriverChoice

POINTS_MAX: Final = 1000
"""How many points a disk may have."""
_TOKEN_BYTES: Final = 4


@attrs.frozen(kw_only=True)
class Checkpointed:
    """A point that was made, and what gave way to it."""

    record: Record
    point: Point
    frozen_ns: int
    dropped: tuple[str, ...]


class Keeper:
    """Keeps points of the disks of one root.

    Args:
        log: open for writing.
        root: where files are.
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
        sources: Sources,
        *,
        reason: str = "",
        on_behalf_of: str = "",
    ) -> None:
        self._log = log
        self._root = root
        self._sources = sources
        self._kernel = sources.kernel
        self._duplicator = Duplicator(sources=sources)
        self._request = request(reason, on_behalf_of)

    # --- making ------------------------------------------------------------------------------

    def checkpoint(
        self, disk: str, name: str, *, keep: int | None, when_live: WhenLive
    ) -> Checkpointed:
        """Keep the disk as it is now, under a name.

        Args:
            disk: a paused or a live disk.
            name: of the point; "" for the next of p1, p2, ...
            keep: let go of the oldest points if there are more than so many, this one included.
            when_live: whether a live disk is suspended for a moment, or refused.

        Raises:
            NoSuchDisk, UsageError: there is no such disk, or that is no name.
            RefusedError: there is such a point, or there is nothing to keep.
            IdentityMismatch, PermanentError: the disk's file is missing or another one.
            TransientError: it is being changed just now.
            BlockedError: there is no room.
        """
        record = self._record(disk)
        name = self._new_name(record, name)
        self._duplicator.refuse(record, when_live=when_live)
        target = self._path(record, name)
        copy = self._duplicator.of_disk(record, target)
        try:
            point = self._point(name, copy)
            kept = payloads.DiskCheckpointed(
                kept=point,
                frozen_ns=copy.frozen_ns,
                by=self._request.by,
                on_behalf_of=self._request.claim,
            )
            leaving = () if keep is None else (*record.points, point)[:-keep]
            events = [self._event(record, kept)]
            if leaving:
                events.append(self._dropped(record, leaving, why=f"keep {keep}"))
            self._log.append(events)
        except BaseException:
            self._duplicator.drop(copy)
            raise
        self._delete(leaving)
        return Checkpointed(
            record=self._record(disk),
            point=point,
            frozen_ns=copy.frozen_ns,
            dropped=tuple(each.name for each in leaving),
        )

    def _new_name(self, record: Record, name: str) -> str:
        taken = {point.name for point in record.points}
        if len(taken) >= POINTS_MAX:
            msg = f"{record.name} has {len(taken)} points; allowed are {POINTS_MAX}"
            raise RefusedError(msg, hint="let go of some: `byre checkpoint NAME --drop POINT`")
        if not name:
            return next(free for n in itertools.count(1) if (free := f"p{n}") not in taken)
        try:
            point_name(name)
        except ValueError as error:
            raise UsageError(str(error)) from error
        if name in taken:
            msg = f"{record.name} has a point named {name}"
            raise RefusedError(msg, hint="give it another name, or drop that one")
        return name

    def _point(self, name: str, copy: Duplicate) -> Point:
        return Point(
            name=name,
            path=str(copy.path),
            file=copy.file,
            boot_id=self._log.boot_id,
            at=self._sources.clock.now_ns(),
            how=copy.method.value,
        )

    # --- letting go --------------------------------------------------------------------------

    def drop(self, disk: str, names: Sequence[str]) -> tuple[str, ...]:
        """Let go of points, all or none; their files are deleted.

        Raises:
            NoSuchDisk, RefusedError: there is no such disk, or no such point of it.
            IdentityMismatch: another file is in the place of one; the log has heard of it.
        """
        record = self._record(disk)
        leaving = tuple(_named(record, name) for name in dict.fromkeys(names))
        self._log.append([self._dropped(record, leaving, why="asked")])
        self._delete(leaving)
        return tuple(each.name for each in leaving)

    def _dropped(self, record: Record, points: Sequence[Point], *, why: str) -> NewEvent:
        payload = payloads.DiskPointsDropped(
            points=tuple(each.name for each in points),
            why=why,
            by=self._request.by,
            on_behalf_of=self._request.claim,
        )
        return attrs.evolve(self._event(record, payload), expect=None)

    def _delete(self, points: Sequence[Point]) -> None:
        for point in points:
            path = Path(point.path)
            found = self._kernel.identify(path)
            if found is not None:
                self._kernel.remove_file(path, self._recognised(point, found))

    # --- going back --------------------------------------------------------------------------

    def go_back(self, disk: str, name: str) -> None:
        """Ask for a disk to go back to a point, and to be live then; returns when it is recorded.

        What was written since is lost, unless a point of it is kept. A faulted disk may go back
        too: that is a way out.

        Raises:
            NoSuchDisk, RefusedError: there is no such disk, or no such point of it.
            IdentityMismatch, PermanentError: the point's file is another one, or missing.
            TransientError: it goes back to a point just now.
            BlockedError: there is no room for the copy.
        """
        record = self._record(disk)
        if record.state not in (*LIVE, State.PAUSED):
            msg = f"{record.name} is {record.state}: it has no points"
            raise RefusedError(msg, hint="`byre points` lists those of live and paused disks")
        if record.in_flight is not None and record.in_flight.trigger is Trigger.REWIND:
            msg = f"{record.name}: rewind is under way"
            raise TransientError(msg, kind="again", hint="try again when it is done")
        lapse.refuse_ended(record, now_ns := self._log.now_ns())
        point = _named(record, name)
        waiting = self._path(record, f"@{secrets.token_hex(_TOKEN_BYTES)}")
        copy = self._duplicator.of_file(Path(point.path), self._found(point), waiting)
        rewind = Rewind(point=name, path=str(waiting), file=copy.file, boot_id=self._log.boot_id)
        spec = attrs.evolve(record.wanted, state=Desired.LIVE)
        payload = payloads.DiskDeclared(
            **payloads.again(record.spec, spec.to_data(), anew=lapse.renewed(record, now_ns)),
            by=self._request.by,
            why="command",
            on_behalf_of=self._request.claim,
            rewind=rewind,
        )
        try:
            self._log.append([self._event(record, payload)])
        except BaseException:
            self._duplicator.drop(copy)
            raise
        if record.rewind is not None:
            before = Path(record.rewind.path)
            found = self._kernel.identify(before)
            if found is not None and found.inode == record.rewind.file.inode:
                self._kernel.remove_file(before, found)

    # --- a point's file ----------------------------------------------------------------------

    def _found(self, point: Point) -> FileIdentity:
        """Return a point's file as it is now; it must be as it was made."""
        found = self._kernel.identify(Path(point.path))
        if found is None:
            msg = f"the file of point {point.name} is missing: {point.path}"
            raise PermanentError(msg, kind="point-missing", hint="put it back, or drop the point")
        self._recognised(point, found)
        if not point.file.same_content(found, same_boot=point.boot_id == self._log.boot_id):
            msg = f"{point.path} was changed: recorded {point.file}; found {found}"
            raise IdentityMismatch(msg, hint="there is no such point any more; drop it")
        return found

    def _recognised(self, point: Point, found: FileIdentity) -> FileIdentity:
        if not point.file.same_file(found, same_boot=point.boot_id == self._log.boot_id):
            msg = f"{point.path} is another file: recorded {point.file}; found {found}"
            raise IdentityMismatch(msg, hint="move it away; byre touches only what it made")
        return found

    def copy_of(self, record: Record, name: str, target: Path) -> Duplicate:
        """Copy a kept point of a disk; raises what `go_back` does."""
        point = _named(record, name)
        return self._duplicator.of_file(Path(point.path), self._found(point), target)

    # --- helpers -----------------------------------------------------------------------------

    def _record(self, disk: str) -> Record:
        record = self._log.record(disk)
        if record is None:
            raise NoSuchDisk(disk)
        return record

    def _path(self, record: Record, what: str) -> Path:
        suffix = "img" if record.driver == DriverChoice.CLONE else "cow"
        return self._root.kept(record.id, record.generation, what, suffix)

    def _event(self, record: Record, payload: object) -> NewEvent:
        return NewEvent(
            disk=record.name,
            type=payloads.type_of(payload),
            data=payloads.to_data(payload),
            actor=self._request.by.user,
            expect=record.expect,
            generation=record.generation,
            reason=self._request.reason,
            correlation_id=self._request.correlation_id,
        )


def _named(record: Record, name: str) -> Point:
    point = lineage.find(record.points, name)
    if point is None:
        known = ", ".join(each.name for each in record.points) or "none"
        msg = f"{record.name} has no point named {name!r}; it has {known}"
        raise RefusedError(msg, hint="`byre points` lists them")
    return point

"""Opening a disk's content for reading, so that it stands still while it is read.

A paused disk is read where it lies, and whether it moved meanwhile is checked at the end. A live
one is suspended for as long as it takes to copy its CoW file into a file without a name, which is
at once where the file system shares blocks. Then the copy is read. Whoever writes to the disk
waits for that moment. What a guest or a mount has not written yet is not in it, as after a power
cut.

A reconciler that sees a suspended device resumes it. So that it still was suspended is looked at
when the copy is done, and if not, it is copied again. A process that is killed in between leaves
the device to the same repair.

What this module does not do: it writes no file that has a name, and tells the log nothing.
Raises OSError of the files besides what is named. May be imported by the API's neighbours.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs

from reconciler.clock import Clock
from reconciler.content.changes import read_changes
from reconciler.content.image import Image, Overlaid, Plain
from reconciler.kernel import extents, newfile, safepath
from reconciler.kernel.port import Kernel
from reconciler.root import Root
from reconciler.space import SpaceLevel, Watermarks
from reconciler.store import files
from statemachine.errors import (
    BlockedError,
    IdentityMismatch,
    PermanentError,
    RefusedError,
    TransientError,
)
from statemachine.machine import LIVE, State
from statemachine.names import DmUuid
from statemachine.record import Record
from statemachine.spec import DriverChoice
from statemachine.units import Bytes

FREEZES_MAX: Final = 5
"""How often a live disk is suspended again because somebody resumed it too early."""


class WhenLive(enum.StrEnum):
    """What becomes of the wish to read a disk that is live."""

    SUSPEND = "suspend"
    REFUSE = "refuse"


def _still() -> None:
    """Nothing can have moved."""


@attrs.frozen(kw_only=True)
class Source:
    """A disk that is open for reading.

    Attributes:
        record: the disk, as it was decided upon.
        image: what it shows.
        base: what it stands on; None where that was not asked for and is not needed.
        frozen_ns: how long it was suspended for it.
        check_unmoved: raises TransientError if what was read may be of two moments.
    """

    record: Record
    image: Image
    base: Plain | None
    frozen_ns: int = 0
    check_unmoved: Callable[[], None] = _still


@attrs.frozen(kw_only=True)
class Sources:
    """Opens disks of one root.

    Attributes:
        kernel: is asked, and suspends and resumes.
        root: whose disks.
        watermarks: how much room is left to live disks.
        boot_id: of this boot.
        clock: for how long a disk was suspended.
    """

    kernel: Kernel
    root: Root
    clock: Clock
    watermarks: Watermarks
    boot_id: str

    @contextlib.contextmanager
    def opened(
        self, record: Record, *, when_live: WhenLive, needs_base: bool = False
    ) -> Iterator[Source]:
        """Open one disk.

        Args:
            record: the disk.
            when_live: what to do if it is.
            needs_base: whether the base of a clone is wanted too; that of a snapshot always is.

        Raises:
            RefusedError: it has no data, is faulted, or is live and must not be suspended.
            IdentityMismatch: its base or its file is another one.
            PermanentError: one of them is missing, or its exception store is damaged.
            TransientError: it is being changed just now, or somebody resumes it all the time.
            BlockedError: there is no room for the copy of a live disk's file.
        """
        self.refuse(record, when_live)
        path = self.own_file(record)
        with contextlib.ExitStack() as stack:
            base = None
            if needs_base or record.driver != DriverChoice.CLONE:
                base = stack.enter_context(self._base(record))
            cow = stack.enter_context(files.opened(path))
            if record.state not in LIVE:
                check = _unmoved(record, cow)
                yield _source(record, cow, base, check)
                return
            copy, frozen_ns = stack.enter_context(self._copied(record, path, cow))
            yield attrs.evolve(_source(record, copy, base, _still), frozen_ns=frozen_ns)

    def own_file(self, record: Record) -> Path:
        """Return the path of a disk's own file, which is the recorded one.

        Raises:
            RefusedError: the disk has no file: it is not attached yet, or removed.
            IdentityMismatch: another file is in its place.
            PermanentError: the file is missing.
        """
        if record.cow is None:
            msg = f"{record.name} is {record.state}: it has no file of its own"
            raise RefusedError(msg, hint="`byre explain` says what it waits for")
        path = Path(record.cow_path)
        found = self.kernel.identify(path)
        if found is None:
            msg = f"{record.name}: its CoW file {path} is missing"
            raise PermanentError(msg, kind="cow-missing", hint="put it back, then `byre retry`")
        if not record.cow.same_file(found, same_boot=record.cow_boot_id == self.boot_id):
            msg = f"{record.name}: {path} is another file: recorded {record.cow}; found {found}"
            raise IdentityMismatch(msg, hint="put the recorded file back, then `byre retry`")
        return path

    def refuse_without_room(self, folder: Path, needed: int) -> None:
        """Refuse to write so much into a folder that live disks would have no room left.

        Raises:
            BlockedError: it is on the file system of the CoW files, and that would be full.
        """
        cows = self.root.cows
        if cows.exists() and folder.stat().st_dev != cows.stat().st_dev:
            return
        free = self.kernel.free_space(folder)
        left = max(0, free.available.count - needed)
        space = self.watermarks.judge(available=Bytes(left), total=free.total)
        if space.level is not SpaceLevel.PLENTY:
            msg = (
                f"no room for {Bytes(needed)} in {folder}, where live disks write too: then {space}"
            )
            hint = "make room, or write to another file system"
            raise BlockedError(msg, errno=errno.ENOSPC, kind="no-space", hint=hint)

    # --- what is refused ---------------------------------------------------------------------

    def refuse(self, record: Record, when_live: WhenLive) -> None:
        """Refuse a disk that cannot be read; see `opened` for what is raised."""
        if record.fault is not None:
            msg = f"{record.name} is faulted: {record.fault.message}"
            raise RefusedError(msg, hint=record.fault.hint)
        if record.state in (State.ABSENT, State.REMOVED):
            msg = f"{record.name} is {record.state}: it has no data"
            raise RefusedError(msg, hint="attached, live and paused disks have")
        if not record.wanted.persistent and record.driver != DriverChoice.CLONE:
            msg = f"{record.name} is a throwaway disk: nothing in its file tells what is where"
            raise RefusedError(msg, hint=f"read the device: `dd if={record.device}`")
        if record.in_flight is not None:
            what = f"{record.in_flight.trigger} is under way"
            hint = "try again in a moment; what a crash left is finished by `byre run`"
            raise TransientError(f"{record.name}: {what}", kind="again", hint=hint)
        if record.state in LIVE and when_live is WhenLive.REFUSE:
            msg = f"{record.name} is live, and is not to be suspended"
            raise RefusedError(msg, hint=f"`byre pause {record.name} --wait` first")

    # --- opening -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _base(self, record: Record) -> Iterator[Plain]:
        path = record.wanted.base
        found = self.kernel.identify(path, follow=True)
        if found is None:
            msg = f"base {path} is missing"
            raise PermanentError(msg, kind="base-missing", hint="put the base back")
        if not record.base.same_content(found, same_boot=record.base_boot_id == self.boot_id):
            msg = f"base {path} has changed: pinned is {record.base}; found is {found}"
            raise IdentityMismatch(msg, hint="put the pinned base back")
        with safepath.regular(path, os.O_RDONLY, follow=True) as descriptor:
            yield Plain.of(descriptor, record.size.count)

    @contextlib.contextmanager
    def _copied(self, record: Record, path: Path, cow: int) -> Iterator[tuple[int, int]]:
        """Copy the file of a live disk at one moment; yields (descriptor, ns of suspension)."""
        is_clone = record.driver == DriverChoice.CLONE
        with safepath.place(path, own=True) as place, newfile.scratch(place) as copy:
            if not extents.reflink(cow, copy):
                if is_clone:
                    msg = f"{record.name} is live, and a clone can only be suspended by its user"
                    raise RefusedError(msg, hint=f"`byre pause {record.name} --wait` first")
                self.refuse_without_room(path.parent, self.kernel.allocated(path).count)
            frozen_ns = 0 if is_clone else self._copy_frozen(record, cow, copy)
            yield copy, frozen_ns

    def _copy_frozen(self, record: Record, cow: int, copy: int) -> int:
        """Suspend, copy, resume; returns for how many ns it was suspended."""
        for _ in range(FREEZES_MAX):
            os.ftruncate(copy, 0)
            _flush(record.device)
            os.fsync(cow)  # what is dirty now would be waited for in the freeze
            began_s = self.clock.monotonic_s()
            with self._frozen(record):
                length = os.fstat(cow).st_size
                if not extents.reflink(cow, copy):
                    extents.copy_data(cow, copy, length)
                os.ftruncate(copy, length)
                was_still = self._is_suspended(record)
            if was_still:
                return int((self.clock.monotonic_s() - began_s) * 1e9)
        msg = f"{record.name}: somebody resumes {record.device_name} while it is copied"
        raise TransientError(msg, kind="again", hint="pause the disk first")

    @contextlib.contextmanager
    def _frozen(self, record: Record) -> Iterator[None]:
        """Suspend a device for a `with` block; one that was suspended before stays so."""
        uuid = str(DmUuid(record.id, record.generation))
        changed = self.kernel.dm_suspend(uuid)
        try:
            yield
        finally:
            if changed:
                self.kernel.dm_resume(uuid)

    def _is_suspended(self, record: Record) -> bool:
        device = self.kernel.dm(record.device_name)
        uuid = str(DmUuid(record.id, record.generation))
        return device is not None and device.uuid == uuid and device.suspended


def _source(record: Record, own: int, base: Plain | None, check: Callable[[], None]) -> Source:
    size = record.size
    if record.driver == DriverChoice.CLONE or base is None:
        image: Image = Plain.of(own, size.count, base=base)
    else:
        image = Overlaid(base=base, store=own, changes=read_changes(own, disk=size))
    return Source(record=record, image=image, base=base, check_unmoved=check)


def _unmoved(record: Record, descriptor: int) -> Callable[[], None]:
    """Remember how a file is; what is returned raises if somebody has written to it since."""
    before = os.fstat(descriptor)

    def check() -> None:
        now = os.fstat(descriptor)
        if (now.st_mtime_ns, now.st_size) != (before.st_mtime_ns, before.st_size):
            msg = f"{record.name} was written to while it was read: somebody has restored it"
            raise TransientError(msg, kind="again", hint="nothing was kept; try again")

    return check


def _flush(device: str) -> None:
    """Have what the host has in its cache of a device written to it, before it is suspended."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

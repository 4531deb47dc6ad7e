"""A copy of a disk's own file, of one moment, under a name of its own in the root.

A paused disk's file is copied as it lies; whether it moved meanwhile is looked at afterwards. A
live one is suspended for the copy, which is at once where the file system shares blocks. What was
copied is on disk before anyone is told, and nothing is left of what failed. Where a reconciler
resumed the device too early it is copied again, as in `source`.

Everything goes through the kernel's port: a crash in between leaves a file that carries the disk's
identity in its name, which `orphans` knows. What this module does not do: it tells the log nothing.
May be imported by forking and points.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import attrs

from reconciler.kernel.port import CloneMethod, Kernel
from reconciler.source import FREEZES_MAX, Sources, WhenLive
from statemachine.errors import (
    BlockedError,
    IdentityMismatch,
    PermanentError,
    RefusedError,
    TransientError,
)
from statemachine.fileidentity import FileIdentity
from statemachine.machine import LIVE, State
from statemachine.names import DmUuid
from statemachine.record import Record
from statemachine.spec import DriverChoice


@attrs.frozen(kw_only=True)
class Duplicate:
    """One copy. `frozen_ns` is how long the disk was suspended for it."""

    path: Path
    file: FileIdentity
    method: CloneMethod
    frozen_ns: int = 0


@attrs.frozen(kw_only=True)
class Duplicator:
    """Copies the own files of one root's disks."""

    sources: Sources

    @property
    def _kernel(self) -> Kernel:
        return self.sources.kernel

    def refuse(self, record: Record, *, when_live: WhenLive) -> None:
        """Refuse a disk that has no data of its own, or whose data is not to be relied on.

        Raises:
            RefusedError: it was never live, is removed, faulted or held, or is live and must not
                be suspended.
            TransientError: it is being changed just now.
        """
        if record.held is not None:
            msg = f"{record.name} is held: {record.held.message}"
            raise RefusedError(msg, hint="say again what it should be, or `byre retry`")
        if not record.wanted.persistent:
            msg = f"{record.name} is a throwaway disk: its data goes with its device"
            raise RefusedError(msg, hint="say `persistent = true` for what is to be kept")
        if record.state is State.ATTACHED:
            msg = f"{record.name} is attached and was never live: nothing was written to it"
            raise RefusedError(msg, hint="make a disk on the same base: `byre create`")
        self.sources.refuse(record, when_live)

    def base(self, record: Record) -> FileIdentity:
        """Return the pin of a disk's base as this boot knows it.

        Raises:
            PermanentError: the base is missing.
            IdentityMismatch: it is another one.
        """
        path = record.wanted.base
        found = self._kernel.identify(path, follow=True)
        if found is None:
            msg = f"base {path} is missing"
            raise PermanentError(msg, kind="base-missing", hint="put the base back")
        same_boot = record.base_boot_id == self.sources.boot_id
        if not record.base.same_content(found, same_boot=same_boot):
            msg = f"base {path} has changed: pinned is {record.base}; found is {found}"
            raise IdentityMismatch(msg, hint="put the pinned base back")
        return attrs.evolve(record.base, device=found.device)

    def of_disk(self, record: Record, target: Path) -> Duplicate:
        """Copy a disk's own file as it is now; `refuse` was called for it.

        Raises:
            PermanentError, IdentityMismatch: the disk's file is missing, or is another one.
            RefusedError: a live clone, where only a reflink could copy it at one moment.
            TransientError: it is written to, or somebody resumes it all the time.
            BlockedError: there is no room.
        """
        path = self.sources.own_file(record)
        self._refuse_without_room(path, target)
        if record.state not in LIVE:
            return self._of_paused(record, path, target)
        if record.driver == DriverChoice.CLONE:
            return self._of_live_clone(record, path, target)
        return self._of_live(record, path, target)

    def of_file(self, path: Path, file: FileIdentity, target: Path) -> Duplicate:
        """Copy a file that nobody writes to; raises what `Kernel.clone_file` does."""
        self._refuse_without_room(path, target)
        method = self._kernel.clone_file(path, target, file.size, expected=file, durable=False)
        copy = Duplicate(path=target, file=self._there(target), method=method)
        try:
            self._kernel.sync_file(target, copy.file)  # its name too: one flush instead of two
        except BaseException:
            self.drop(copy)
            raise
        return copy

    def drop(self, copy: Duplicate) -> None:
        """Take a copy away that nobody was told of."""
        self._kernel.remove_file(copy.path, copy.file)

    # --- each kind ---------------------------------------------------------------------------

    def _of_paused(self, record: Record, path: Path, target: Path) -> Duplicate:
        before = self._there(path)
        copy = self.of_file(path, before, target)
        if not before.same_content(self._there(path), same_boot=True):
            self.drop(copy)
            msg = f"{record.name} was written to while it was copied: somebody has restored it"
            raise TransientError(msg, kind="again", hint="nothing was kept; try again")
        return copy

    def _of_live_clone(self, record: Record, path: Path, target: Path) -> Duplicate:
        """Copy at one moment what nobody can suspend: the file system shares all of it at once."""
        copy = self.of_file(path, self._there(path), target)
        if copy.method is not CloneMethod.REFLINK:
            self.drop(copy)
            msg = f"{record.name} is live, and a clone can only be suspended by its user"
            raise RefusedError(msg, hint=f"`byre pause {record.name} --wait` first")
        return copy

    def _of_live(self, record: Record, path: Path, target: Path) -> Duplicate:
        uuid = str(DmUuid(record.id, record.generation))
        for _ in range(FREEZES_MAX):
            self._kernel.dm_flush(uuid)
            self._kernel.sync_file(path, self._there(path))  # it would be waited for in the freeze
            began_s = self.sources.clock.monotonic_s()
            with self._frozen(uuid):
                file = self._there(path)
                method = self._kernel.clone_file(
                    path, target, file.size, expected=file, durable=False
                )
                was_still = self._is_suspended(record, uuid)
            frozen_ns = int((self.sources.clock.monotonic_s() - began_s) * 1e9)
            copy = Duplicate(
                path=target, file=self._there(target), method=method, frozen_ns=frozen_ns
            )
            try:
                if was_still:
                    self._kernel.sync_file(target, copy.file)
                    return copy
            except BaseException:
                self.drop(copy)
                raise
            self.drop(copy)
        msg = f"{record.name}: somebody resumes {record.device_name} while it is copied"
        raise TransientError(msg, kind="again", hint="pause the disk first")

    # --- helpers -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _frozen(self, uuid: str) -> Iterator[None]:
        """Suspend a device for a `with` block; one that was suspended before stays so."""
        changed = self._kernel.dm_suspend(uuid)
        try:
            yield
        finally:
            if changed:
                self._kernel.dm_resume(uuid)

    def _is_suspended(self, record: Record, uuid: str) -> bool:
        device = self._kernel.dm(record.device_name)
        return device is not None and device.uuid == uuid and device.suspended

    def _there(self, path: Path) -> FileIdentity:
        found = self._kernel.identify(path)
        if found is None:
            msg = f"{path} is missing"
            raise PermanentError(msg, kind="cow-missing", hint="put it back, then `byre retry`")
        return found

    def _refuse_without_room(self, path: Path, target: Path) -> None:
        """Refuse a copy for which live disks would have to give their room; a reflink needs none.

        Only where room is scarce is it tried whether blocks can be shared.
        """
        try:
            self.sources.refuse_without_room(target.parent, self._kernel.allocated(path).count)
        except BlockedError:
            if not self._kernel.shares_blocks(path):
                raise

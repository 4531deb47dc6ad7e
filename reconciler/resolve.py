"""A person's word about an orphan: have it removed, or given back to its disk.

Everything is looked at again under the root's lock, right before the change: what is in use, what
has become another thing and what belongs to another root is refused and stays as it is. What
was done is in the log as `orphan.resolved`.

What this module does not do: it adopts no data. A file or device is given back only to a disk
that the records still have; to make a disk out of a left-over file is refused, with what can be
done by hand. May be imported by cli.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from reconciler.api import Byre
from reconciler.kernel.openfiles import users_of
from reconciler.orphans import MAPPER, Orphan, OrphanKind, survey
from reconciler.requester import this_process
from statemachine import payloads
from statemachine.errors import ByreError, IdentityMismatch, RefusedError, TransientError
from statemachine.events import NewEvent
from statemachine.names import HOST
from statemachine.observed import DmDevice, FileIdentity, Holder, LinkKind
from statemachine.projection import Record

FileUsers = Callable[[FileIdentity], tuple[Holder, ...]]


class NoSuchOrphan(ByreError):
    """Nothing of this name is an orphan of this root."""

    exit_code = 3

    def __init__(self, name: str, orphans: Sequence[Orphan]) -> None:
        known = ", ".join(orphan.name for orphan in orphans) or "none"
        super().__init__(f"no such orphan: {name!r}; there are: {known}", hint="see `byre orphans`")


class Resolver:
    """Resolves orphans of an open root.

    Args:
        byre: open for writing; its lock is taken for each call.
        file_users: who has a file open; slow, asked before a file is deleted.
        reason: why, in the words of whoever asks; recorded.
    """

    def __init__(self, byre: Byre, *, file_users: FileUsers = users_of, reason: str = "") -> None:
        self._byre = byre
        self._kernel = byre.kernel
        self._file_users = file_users
        self._reason = reason

    def remove(self, name: str) -> Orphan:
        """Take an orphan away.

        Raises:
            NoSuchOrphan: nothing of this name is one now.
            RefusedError: it is in use, belongs to another root, or is another thing by now.
            RootBusy: a reconciler is at work on this root.
            ActionError: the kernel refused.
        """
        with self._byre.lock:
            orphan = self._named(name)
            _refuse_elsewhere(orphan)
            _REMOVE[orphan.kind](self, orphan)
            self._record(orphan, "removed")
        return orphan

    def adopt(self, name: str) -> Orphan:
        """Give an orphan back to the disk that lost it.

        Of all orphans that is only a device that somebody renamed: it is taken away under its
        wrong name, and the next pass brings the disk live under its own, on the same CoW file.

        Raises:
            NoSuchOrphan, RefusedError, RootBusy, ActionError: see `remove`.
        """
        with self._byre.lock:
            orphan = self._named(name)
            _refuse_elsewhere(orphan)
            self._refuse_without_owner(orphan)
            self._remove_dm(orphan)
            self._record(orphan, "adopted")
        return orphan

    def _named(self, name: str) -> Orphan:
        orphans = survey(self._byre.log, self._kernel, self._byre.root)
        plain = {name, name.removeprefix("/dev/"), name.removeprefix(f"{MAPPER}/")}
        plain.add(name.removeprefix(f"{self._byre.root.cows}/"))
        for orphan in orphans:
            if orphan.name == name or orphan.name in plain:
                return orphan
        raise NoSuchOrphan(name, orphans)

    def _record(self, orphan: Orphan, resolution: str) -> None:
        by = this_process()
        payload = payloads.OrphanResolved(
            kind=orphan.kind.value,
            name=orphan.name,
            identity=orphan.identity,
            resolution=resolution,
            by=by,
        )
        event = NewEvent(
            disk=HOST,
            type=payloads.type_of(payload),
            data=payloads.to_data(payload),
            actor=by.user,
            reason=self._reason,
            correlation_id=secrets.token_hex(16),
        )
        self._byre.log.append([event])

    # --- removing ----------------------------------------------------------------------------

    def _remove_dm(self, orphan: Orphan) -> None:
        """Remove the device; a loop that was handed over to it goes along."""
        device = self._kernel.dm(orphan.name)
        if device is None or device.uuid != orphan.identity:
            raise _changed(orphan)
        if device.open_count:
            raise self._in_use(orphan, device)
        try:
            self._kernel.dm_remove(orphan.name, orphan.identity)
        except TransientError as error:
            raise self._in_use(orphan, device) from error
        path = MAPPER / orphan.name
        link = self._kernel.read_link(path)
        if link.kind is LinkKind.SYMLINK and Path(link.target).name == Path(device.node).name:
            self._kernel.drop_link(path, link.target)

    def _remove_loop(self, orphan: Orphan) -> None:
        """Detach the loop; the file below stays."""
        assert orphan.loop is not None, "a loop was found as one"
        loop = self._kernel.loop(orphan.loop.number)
        if loop is None or loop.marker != orphan.loop.marker:
            raise _changed(orphan)
        try:
            self._kernel.loop_detach(orphan.loop)
        except TransientError as error:
            raise _used(orphan, self._kernel.holders(loop.device)) from error

    def _remove_file(self, orphan: Orphan) -> None:
        """Delete the file, and its data with it."""
        assert orphan.file is not None, "a file was found as one"
        path, file = self._byre.root.cows / orphan.name, orphan.file
        now = self._kernel.identify(path)
        if now is None or not file.same_file(now, same_boot=True):
            raise _changed(orphan)
        loops = [loop for loop in self._kernel.loops() if loop.backs(now)]
        if loops:
            hint = (
                f"`byre orphans --remove loop{loops[0].number}` first, if it is an orphan as well"
            )
            raise RefusedError(f"{path} is in use by {loops[0].path}", hint=hint)
        users = self._file_users(now)
        if users:
            raise _used(orphan, users)
        self._kernel.remove_file(path, now)

    def _remove_link(self, orphan: Orphan) -> None:
        """Remove the symlink while it still leads nowhere."""
        node = Path("/dev") / Path(orphan.target).name
        if self._kernel.identify(node) is not None:
            raise _changed(orphan)
        self._kernel.drop_link(Path(orphan.name), orphan.target)

    def _in_use(self, orphan: Orphan, device: DmDevice) -> RefusedError:
        return _used(orphan, self._kernel.holders(device.device))

    # --- adopting ----------------------------------------------------------------------------

    def _refuse_without_owner(self, orphan: Orphan) -> None:
        record = self._owner(orphan)
        if orphan.kind is OrphanKind.DM and record is not None:
            if self._kernel.dm(record.device_name) is None:
                return
            msg = f"{orphan.name}: {record.name} has its device {record.device_name}"
            raise RefusedError(msg, hint="`byre orphans --remove` takes the other one away")
        msg = f"{orphan.name} cannot be adopted: {orphan.evidence}"
        raise RefusedError(msg, hint=_BY_HAND[orphan.kind])

    def _owner(self, orphan: Orphan) -> Record | None:
        """Return the disk that an orphan belongs to, in its present generation; None if removed."""
        for record in self._byre.log.records():
            key = (record.id, record.generation)
            owner = orphan.owner
            if owner is not None and key == (owner.disk_id, owner.generation):
                return record if record.desired != "removed" and record.state != "removed" else None
        return None


_REMOVE: Final[dict[OrphanKind, Callable[[Resolver, Orphan], None]]] = {
    OrphanKind.DM: Resolver._remove_dm,  # noqa: SLF001 - the table of this very class
    OrphanKind.LOOP: Resolver._remove_loop,  # noqa: SLF001
    OrphanKind.FILE: Resolver._remove_file,  # noqa: SLF001
    OrphanKind.LINK: Resolver._remove_link,  # noqa: SLF001
}

_BY_HAND: Final[dict[OrphanKind, str]] = {
    OrphanKind.DM: (
        "this version gives a device back only to a disk that still exists; copy its data with "
        "`dd if=/dev/mapper/NAME of=rescued.img conv=sparse` and create a disk on that as base"
    ),
    OrphanKind.LOOP: "a disk that needs a loop makes one; `byre orphans --remove` detaches it",
    OrphanKind.FILE: (
        "this version makes no disk out of a left-over file; a .img is a whole image: copy it away "
        "and create a disk with the copy as base. A .cow is of use only on its own base: copy it "
        "away together with the base"
    ),
    OrphanKind.LINK: "it leads nowhere; `byre orphans --remove` takes it away",
}
"""What can be done with what is not adopted."""


def _refuse_elsewhere(orphan: Orphan) -> None:
    if orphan.elsewhere:
        msg = f"{orphan.name} is left alone: {orphan.evidence}"
        hint = "ask that root: `byre --root DIR orphans`"
        raise RefusedError(msg, hint=hint)


def _used(orphan: Orphan, holders: Sequence[Holder]) -> RefusedError:
    names = ", ".join(map(str, holders)) or "somebody who cannot be named (udev may look at it)"
    return RefusedError(
        f"{orphan.name} is in use by {names}", hint="nothing was changed; end that first"
    )


def _changed(orphan: Orphan) -> IdentityMismatch:
    msg = f"{orphan.name} is not what it was a moment ago ({orphan.identity}); nothing was changed"
    return IdentityMismatch(msg, hint="look again with `byre orphans`")

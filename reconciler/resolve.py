"""A person's word about an orphan: have it removed, given back to its disk, or made a disk.

Everything is looked at again under the root's lock, right before the change: what is in use, what
has become another thing and what belongs to another root is refused and stays as it is. What
was done is in the log as `orphan.resolved`.

What this module does not do: it decides nothing about what a disk would be made of, see
`reconciler.adoption`. May be imported by cli.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs

from reconciler.adoption import Adopter, Word
from reconciler.api import Byre
from reconciler.kernel.openfiles import users_of
from reconciler.orphans import MAPPER, Orphan, OrphanKind, survey
from reconciler.requester import request, this_process
from statemachine import payloads
from statemachine.errors import (
    ActionError,
    IdentityMismatch,
    NoSuchOrphan,
    RefusedError,
    TransientError,
)
from statemachine.events import NewEvent
from statemachine.fileidentity import FileIdentity
from statemachine.names import HOST, base_marker, is_base_marker
from statemachine.observed import DmDevice, Holder, LinkKind, Loop
from statemachine.record import Record

FileUsers = Callable[[FileIdentity], tuple[Holder, ...]]


@attrs.frozen(kw_only=True)
class Adopted:
    """What was adopted, and the disk that it is now."""

    orphan: Orphan
    disk: str


class Resolver:
    """Resolves orphans of an open root.

    Args:
        byre: open for writing; its lock is taken for what changes the kernel.
        file_users: who has a file open; slow, asked before a file is deleted.
        reason: why, in the words of whoever asks; recorded.
        on_behalf_of: for whom, as the caller says; recorded as a claim.
    """

    def __init__(
        self,
        byre: Byre,
        *,
        file_users: FileUsers = users_of,
        reason: str = "",
        on_behalf_of: str = "",
    ) -> None:
        self._byre = byre
        self._kernel = byre.kernel
        self._file_users = file_users
        self._request = request(reason, on_behalf_of)

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
            self._byre.log.append([self._resolved(orphan, "removed")])
        return orphan

    def adopt(self, name: str, word: Word | None = None) -> Adopted:
        """Give an orphan back to the disk that lost it, or take it into the log as a disk.

        A device that somebody renamed is taken away under its wrong name, and the next pass brings
        the disk live under its own, on the same CoW file. A device or CoW file of which the log
        does not know becomes a disk as it is: nothing of it is touched. So this works beside a
        running reconciler, which goes on with the disk.

        Args:
            name: what `survey` calls it.
            word: what the disk is to be called and stands on, where that cannot be seen.

        Raises:
            NoSuchOrphan, RootBusy, ActionError: see `remove`.
            UsageError, SpecError, RefusedError, IdentityMismatch: see `Adopter.take_in`.
            VersionConflict: somebody declared a disk of this name at the same moment.
        """
        orphan = self._named(name)
        _refuse_elsewhere(orphan)
        record = self._owner(orphan)
        if orphan.kind is OrphanKind.DM and record is not None:
            if word is not None and word != Word():
                msg = f"{orphan.name} is {record.name}'s device: its name and base are known"
                raise RefusedError(msg, hint="leave --as and --base out")
            return self._give_back(name, record)
        return self._take_in(orphan, word or Word())

    def _named(self, name: str) -> Orphan:
        orphans = self._survey()
        plain = {name, name.removeprefix("/dev/"), name.removeprefix(f"{MAPPER}/")}
        plain.add(name.removeprefix(f"{self._byre.root.cows}/"))
        for orphan in orphans:
            if orphan.name == name or orphan.name in plain:
                return orphan
        raise NoSuchOrphan(name, [orphan.name for orphan in orphans])

    def _survey(self) -> tuple[Orphan, ...]:
        return survey(self._byre.log, self._kernel, self._byre.root)

    def _resolved(self, orphan: Orphan, resolution: str) -> NewEvent:
        by = this_process()
        payload = payloads.OrphanResolved(
            kind=orphan.kind.value,
            name=orphan.name,
            identity=orphan.identity,
            resolution=resolution,
            by=by,
            on_behalf_of=self._request.claim,
        )
        return NewEvent(
            disk=HOST,
            type=payloads.type_of(payload),
            data=payloads.to_data(payload),
            actor=by.user,
            reason=self._request.reason,
            correlation_id=self._request.correlation_id,
        )

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

    def _give_back(self, name: str, record: Record) -> Adopted:
        """Take a renamed device away; the disk comes live again under its own name."""
        with self._byre.lock:
            orphan = self._named(name)
            if self._kernel.dm(record.device_name) is not None:
                msg = f"{orphan.name}: {record.name} has its device {record.device_name}"
                raise RefusedError(msg, hint="`byre orphans --remove` takes the other one away")
            self._remove_dm(orphan)
            self._byre.log.append([self._resolved(orphan, "adopted")])
        return Adopted(orphan=orphan, disk=record.name)

    def _take_in(self, orphan: Orphan, word: Word) -> Adopted:
        """Tell the log of the disk, and that its device, its loop and its file are no orphans."""
        whole = [each for each in self._survey() if each.owner == orphan.owner]
        # A live device says more than its file does: its name, and its base.
        above = [each for each in whole if each.dm is not None and not each.dm.origin]
        taken = self._adopter().take_in(above[0] if above else orphan, word)
        told = (self._resolved(each, "adopted") for each in whole)
        self._byre.log.append([*taken.events, *told])
        if taken.base_loop is not None:
            self._hand_over(taken.base_loop)
        return Adopted(orphan=orphan, disk=taken.name)

    def _adopter(self) -> Adopter:
        byre = self._byre
        return Adopter(
            self._kernel,
            byre.root,
            byre.log.records(),
            device_prefix=byre.settings.device_prefix,
            by=this_process(),
            reason=self._request.reason,
            on_behalf_of=self._request.claim,
            correlation_id=self._request.correlation_id,
        )

    def _hand_over(self, loop: Loop) -> None:
        """Have a base loop of the lost log go with the last device on it: nobody else would."""
        if is_base_marker(loop.marker) and loop.marker != base_marker(self._byre.log.root_id):
            with contextlib.suppress(ActionError):  # then it stays behind, and does no harm
                self._kernel.loop_set_autoclear(loop)

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

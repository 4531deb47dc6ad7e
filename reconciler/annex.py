"""Taking over the disks of another program: what it made becomes byre's, under whoever uses it.

The CoW file is moved into the root, the device gets its UUID, and then it is adopted as an orphan
is. No IO stops: a move changes no inode, and a UUID no table. The device keeps its name, so paths
to it stay right. The loop of the base is left alone: other disks of that program may need it.

That it was begun is in the log before the first change (`orphan.found`). A crash in between leaves
an orphan of this root, with which the same call goes on. What cannot be undone (a device gets a
UUID once) comes after every check.
Decision: docs/decisions/0034-disks-of-others-are-taken-over-as-they-are.md.
May be imported by cli.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from reconciler.adoption import Word
from reconciler.api import Byre
from reconciler.foreign import Find, Looker, Theirs
from reconciler.kernel.openfiles import users_of
from reconciler.orphans import Orphan, OrphanKind, found_event, newly_found
from reconciler.peers import Peer
from reconciler.requester import as_text, this_process
from reconciler.resolve import FileUsers, Resolver
from statemachine.errors import IdentityMismatch, RefusedError
from statemachine.names import DmUuid

_OWN_FILE: Final = re.compile(r"([0-9a-f]{32})-([1-9][0-9]{0,9})\.cow")
"""What `Root.cow` makes."""


class Taker:
    """Takes over what one program has on this host.

    Args:
        byre: the root that is to have the disks, open for writing.
        peer: the program.
        folder: where it keeps its files; None for its usual place.
        word: what a person says of one disk: its name, its base.
        file_users: who has a file open; slow, asked before a file at rest is moved.
        reason: why, in the words of whoever asks; recorded.
        on_behalf_of: for whom, as the caller says; recorded as a claim.
    """

    def __init__(
        self,
        byre: Byre,
        peer: Peer,
        *,
        folder: Path | None = None,
        word: Word | None = None,
        file_users: FileUsers = users_of,
        reason: str = "",
        on_behalf_of: str = "",
    ) -> None:
        self._byre = byre
        self._peer = peer
        self._word = word or Word()
        self._folder = folder or peer.folder
        self._file_users = file_users
        self._reason = as_text(reason)
        self._claim = on_behalf_of

    def look(self, wanted: Sequence[str] = ()) -> tuple[Find, ...]:
        """Return what there is; changes nothing. See `Looker.look`."""
        byre = self._byre
        theirs = Theirs(peer=self._peer, folder=self._folder, word=self._word)
        return Looker(byre.kernel, byre.log, byre.root, theirs).look(wanted)

    def take(self, find: Find) -> str:
        """Make a disk of it; returns the disk's name. Idempotent.

        Raises:
            RefusedError: it cannot be taken over.
            IdentityMismatch: it is not what was looked at.
            NoSuchOrphan, SpecError, VersionConflict: see `Resolver.adopt`.
            ActionError: the kernel refused.
        """
        [now] = self.look([find.name])
        if now.is_taken:
            return now.disk
        if now.flaw:
            raise RefusedError(f"{now.name} cannot be taken over: {now.flaw}", hint=now.advice)
        if (now.number, now.cow) != (find.number, find.cow):
            msg = f"{find.name} is not what it was a moment ago"
            raise IdentityMismatch(msg, hint="look again with --dry-run")
        owner = self._owner(now)
        orphan = self._orphan(now, owner)
        self._tell(orphan)
        self._move(now, owner)
        if now.kind is OrphanKind.DM:
            assert now.number is not None, "a device has a number"
            self._byre.kernel.dm_give_uuid(now.name, now.number, str(owner))
        resolver = Resolver(self._byre, reason=self._reason, on_behalf_of=self._claim)
        return resolver.adopt(orphan.name, Word(name=now.disk, base=now.base)).disk

    def _owner(self, find: Find) -> DmUuid:
        """Return the identity that an attempt before has begun to give it, or a new one."""
        if find.owner is not None:
            return find.owner
        path = Path(find.cow)
        begun = _OWN_FILE.fullmatch(path.name) if path.parent == self._byre.root.cows else None
        return DmUuid(begun[1], int(begun[2])) if begun else DmUuid(secrets.token_hex(16), 1)

    def _orphan(self, find: Find, owner: DmUuid) -> Orphan:
        """Return it as the orphan that it is going to be for a moment."""
        assert find.file is not None, "what has no flaw has a CoW file"
        own = self._path(owner)
        is_device = find.kind is OrphanKind.DM
        return Orphan(
            kind=find.kind,
            name=find.name if is_device else own.name,
            identity=str(owner) if is_device else f"{find.file.device}:{find.file.inode}",
            evidence=f"{find.name} of {self._peer.name} is taken over; {find.cow} becomes {own}",
            owner=owner,
        )

    def _tell(self, orphan: Orphan) -> None:
        by = this_process()
        for each in newly_found(self._byre.log, [orphan]):
            told = attrs.evolve(found_event(each), actor=by.user, reason=self._reason)
            self._byre.log.append([told])

    def _move(self, find: Find, owner: DmUuid) -> None:
        assert find.file is not None, "what has no flaw has a CoW file"
        users = self._file_users(find.file) if find.kind is OrphanKind.FILE else ()
        if users:
            msg = f"{find.cow} is in use by {', '.join(map(str, users))}"
            raise RefusedError(msg, hint="nothing was changed; end that first")
        self._byre.kernel.move_file(Path(find.cow), self._path(owner), find.file)

    def _path(self, owner: DmUuid) -> Path:
        return self._byre.root.cow(owner.disk_id, owner.generation, "cow")

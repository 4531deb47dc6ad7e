"""Who uses which base: what decides when a base's shared loop device is given back.

A base has one read-only loop device, shared by all disks on it. It is made for the first of them
and detached with the last. Who holds it is kept here, in memory, and begins anew from the records
at every start; so a base loop that a crash left without a disk is found by `unclaimed`.

Making and giving back happen under one lock per base, so the two cannot overlap; other bases are
not held up. May be imported by actions, drivers and reconcile.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from pathlib import Path
from typing import Final

from reconciler.kernel.port import Kernel
from statemachine.errors import ActionError, IdentityMismatch
from statemachine.fileidentity import FileIdentity
from statemachine.names import base_marker
from statemachine.observed import Loop

_BUSY_IS_FINE: Final = (ActionError, IdentityMismatch)


class BaseLoops:
    """The base loops of one root. Safe to use from several threads.

    Args:
        kernel: where the loops are.
        root_id: whose loops; other roots have their own, even on the same base.
    """

    def __init__(self, kernel: Kernel, root_id: str) -> None:
        self._kernel = kernel
        self._marker = base_marker(root_id)
        self._users: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
        self._numbers: dict[tuple[int, int], int] = {}
        self._locks: defaultdict[tuple[int, int], threading.Lock] = defaultdict(threading.Lock)
        self._guard = threading.Lock()

    def claim(self, disk: str, base: FileIdentity) -> None:
        """Note that a disk uses a base; for the records at the start."""
        with self._guard:
            self._users[_key(base)].add(disk)

    def find(self, base: FileIdentity) -> Loop | None:
        """Return our loop on a base if there is one; changes nothing."""
        number = self._numbers.get(_key(base))
        if number is not None:
            loop = self._kernel.loop(number, named=False)
            if loop is not None and self._is_ours(loop, base):
                return loop
        for loop in self._kernel.loops():
            if self._is_ours(loop, base):
                self._numbers[_key(base)] = loop.number
                return loop
        return None

    def attach(self, disk: str, path: Path, base: FileIdentity) -> tuple[Loop, bool]:
        """Claim the base for a disk and return its loop, and whether it had to be made.

        Raises:
            ActionError, IdentityMismatch: as `Kernel.loop_attach`; the claim is then given back.
        """
        with self._lock(base):
            self.claim(disk, base)
            found = self.find(base)
            if found is not None:
                return found, False
            try:
                loop = self._taken_back(base) or self._kernel.loop_attach(
                    path, base, marker=self._marker, read_only=True
                )
            except BaseException as error:
                others = self._forget(disk, base)
                if isinstance(error, ActionError) and not others:
                    self._take_away(base)  # it may have been made all the same
                raise
            self._numbers[_key(base)] = loop.number
            return loop, True

    def _take_away(self, base: FileIdentity) -> None:
        with contextlib.suppress(*_BUSY_IS_FINE):
            loop = self.find(base)
            if loop is not None:
                self._detach(loop)

    def _taken_back(self, base: FileIdentity) -> Loop | None:
        """Return our loop on a base that was given up while a dm device still held it.

        Somebody's `losetup -d` and our own giving back leave it with autoclear (kernel fact 11).
        A second loop beside it would be one too many for as long as that device lives.
        """
        for loop in self._kernel.loops():
            if self._is_mine(loop, base) and self._kernel.loop_keep(loop):
                return self._kernel.loop(loop.number, named=False)
        return None

    def release(self, disk: str, base: FileIdentity) -> bool:
        """Give up a disk's claim; detach the loop if it was the last one. Tells if it did.

        A loop that a dm device still holds stays: the kernel knows better than our count.
        """
        with self._lock(base):
            if self._forget(disk, base):
                return False
            loop = self.find(base)
            return loop is not None and self._detach(loop)

    def unclaimed(self) -> tuple[Loop, ...]:
        """Return our base loops that no disk uses; after a crash, before any work."""
        claimed = {key for key, users in self._users.items() if users}
        return tuple(
            loop
            for loop in self._kernel.loops()
            if loop.marker == self._marker
            and (loop.backing_device, loop.backing_inode) not in claimed
        )

    def sweep(self) -> list[Loop]:
        """Give back every unclaimed base loop; returns those that went."""
        return [loop for loop in self.unclaimed() if self._detach(loop)]

    def _detach(self, loop: Loop) -> bool:
        """Detach a loop; while udev or a dm device has it open, the kernel does it later."""
        try:
            return self._kernel.loop_detach(loop)
        except _BUSY_IS_FINE:
            with contextlib.suppress(*_BUSY_IS_FINE):
                self._kernel.loop_set_autoclear(loop)
            return False

    def _forget(self, disk: str, base: FileIdentity) -> bool:
        """Drop a claim; tell whether others remain."""
        with self._guard:
            users = self._users[_key(base)]
            users.discard(disk)
            return bool(users)

    def _is_ours(self, loop: Loop, base: FileIdentity) -> bool:
        # One with autoclear was given up and may vanish at any moment.
        return self._is_mine(loop, base) and not loop.autoclear

    def _is_mine(self, loop: Loop, base: FileIdentity) -> bool:
        return loop.marker == self._marker and loop.read_only and loop.backs(base)

    def _lock(self, base: FileIdentity) -> threading.Lock:
        with self._guard:
            return self._locks[_key(base)]


def _key(base: FileIdentity) -> tuple[int, int]:
    return (base.device, base.inode)

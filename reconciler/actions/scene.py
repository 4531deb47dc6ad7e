"""What an action is, and what the actions of one transition hand on to each other.

May be imported by the actions, drivers, act, busy and reconcile.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import attrs

from reconciler.bases import BaseLoops
from reconciler.kernel.port import Kernel
from statemachine.errors import BlockedError, TransientError
from statemachine.fileidentity import FileIdentity
from statemachine.observed import DeviceNumber, Holder, Loop


@attrs.define(kw_only=True, eq=False)
class Scene:
    """What the actions of one transition of one disk hand on to each other."""

    kernel: Kernel
    bases: BaseLoops
    disk: str
    same_boot: bool
    """Whether the base's pin was taken in this boot."""
    link_roots: tuple[Path, ...] = ()
    """Where links may be made; none for anywhere."""
    base: FileIdentity | None = None
    cow: FileIdentity | None = None
    cow_is_new: bool = False
    cow_method: str = ""
    base_loop: Loop | None = None
    cow_loop: Loop | None = None
    cow_loop_hint: int | None = None
    """Where the loop on the CoW file was last seen, to find it without a search."""
    origin: DeviceNumber | None = None
    """The dm device that makes the base longer, where there is one."""
    origin_is_new: bool = False
    dm_is_new: bool = False
    """Whether this very transition made the dm device."""
    device: DeviceNumber | None = None
    device_path: str = ""
    cow_next: FileIdentity | None = None
    """A smaller store that was written beside the CoW file."""
    saved_bytes: int | None = None
    """How much room it saves; None if none was tried."""
    link_before: str = ""
    """Where the link led before it was made to lead to this disk."""
    link_target: str = ""
    """The text of the link, once it was made."""

    def goes_on_from(self, before: Scene) -> None:
        """Take over what the transition just before, of the same pass, has checked or made."""
        self.base, self.cow, self.base_loop = before.base, before.cow, before.base_loop


class Action(Protocol):
    """One planned change."""

    def do(self, scene: Scene) -> bool:
        """Make it so; True when something had to be changed.

        Raises:
            ActionError, RefusedError: it could not be done, or must not be.
        """

    def undo(self, scene: Scene) -> None:
        """Take back what `do` changed; called only after it returned True."""

    def __str__(self) -> str:
        """Say in the imperative what it does, for plans and the log."""


def in_use(
    scene: Scene, path: str, device: DeviceNumber, error: TransientError
) -> BlockedError | TransientError:
    """Say who holds a device; udev's and blkid's short looks are transient.

    Returns:
        BlockedError with the holders, or the TransientError as it is when nobody can be named.
    """
    holders = lasting(scene.kernel.holders(device))
    return in_use_error(path, holders, errno=error.errno) if holders else error


def lasting(holders: Sequence[Holder]) -> tuple[Holder, ...]:
    """Return the holders that are no short look of udev's or blkid's."""
    return tuple(holder for holder in holders if not _is_udev(holder.name))


def in_use_error(path: str, holders: Sequence[Holder], *, errno: int | None = None) -> BlockedError:
    """Return the error that names who holds a device."""
    names = tuple(map(str, holders))
    msg = f"{path} is in use by {', '.join(names) or 'somebody who cannot be named'}"
    hint = "byre goes on by itself when it is closed; it never forces"
    return BlockedError(msg, errno=errno, kind="in-use", holders=names, hint=hint)


def _is_udev(name: str) -> bool:
    return any(word in name for word in ("udev", "blkid", "systemd-udevd"))

"""The Driver port: what a disk is made of, what its kernel side should look like, what to do.

A driver changes nothing itself. It looks (`observe`), tells how what it saw compares with a live,
attached or paused disk (`appraise`, pure), and lists the actions of a trigger (`plan`, pure).
May be imported by drift, observe, plan and reconcile.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Protocol

import attrs

from reconciler.actions import Action
from reconciler.bases import BaseLoops
from reconciler.drivers.cow_room import CowRoom
from reconciler.kernel.port import Capabilities, Kernel
from reconciler.root import Root
from reconciler.space import Space
from statemachine.machine import Trigger
from statemachine.observed import LinkKind, ObservedDisk
from statemachine.record import Record


class Shape(enum.StrEnum):
    """Which state the kernel side looks like, whatever the record says."""

    NOTHING = "nothing"
    """No file of the disk's own, nothing in the kernel."""
    STORED = "stored"
    """The disk's own file and nothing else that matters."""
    ATTACHED = "attached"
    """The file on its loop device, no device above it."""
    LIVE = "live"
    """The device is there and leads where it should."""


@attrs.frozen(kw_only=True)
class Appraisal:
    """What an observation amounts to."""

    shape: Shape
    defects: tuple[str, ...] = ()
    """What is wrong within the shape and can be put right ("link /x is missing")."""
    leftovers: tuple[str, ...] = ()
    """What is there and should not be, in a shape below live ("loop /dev/loop3")."""
    room: CowRoom | None = None
    """How full a live disk's exception store is; None where there is none."""
    is_unheard_of: bool = False
    """Whether the disk has data that the record does not know of."""
    fault: str = ""
    """Why nothing must be done without a person's word; "" when there is none."""
    fault_kind: str = ""
    fault_hint: str = ""
    fault_exit_code: int = 1


@attrs.frozen(kw_only=True)
class Ground:
    """What a plan stands on besides the record and the observation."""

    root: Root
    boot_id: str
    capabilities: Capabilities
    space: Space
    """The room on the file system of the CoW files."""
    cow_levels: tuple[int, ...] = ()
    """At which fill levels of an exception store the log tells of it, in percent, ascending."""
    over_limit: str = ""
    """Why a disk may not begin or go live, by the limits of the root."""


class Driver(Protocol):
    """See the module docstring."""

    @property
    def name(self) -> str:
        """The driver's name in specs, events and `get`."""

    def unavailable(self, capabilities: Capabilities) -> str:
        """Say why this driver cannot work here; "" when it can."""

    def cow_path(self, record: Record, ground: Ground) -> Path:
        """Return where the disk's own file is, or will be."""

    def observe(self, kernel: Kernel, bases: BaseLoops, record: Record, cow: Path) -> ObservedDisk:
        """Look at everything that the disk has; changes nothing."""

    def appraise(self, record: Record, observed: ObservedDisk, ground: Ground) -> Appraisal:
        """Say what an observation amounts to; pure."""

    def plan(
        self, trigger: Trigger, record: Record, observed: ObservedDisk, ground: Ground
    ) -> tuple[Action, ...]:
        """List the actions of a trigger, in order; pure."""


@attrs.frozen(kw_only=True)
class View:
    """One disk as it was looked at: everything that a decision may use."""

    record: Record
    observed: ObservedDisk
    seen: Appraisal
    driver: Driver
    ground: Ground


def left_links(record: Record, observed: ObservedDisk, ours: tuple[str, ...]) -> tuple[str, ...]:
    """Name the links that a disk below live still has; pure.

    Args:
        record: for the wanted link, and for the one that was there when the device was lost.
        observed: what is at the wanted path.
        ours: texts that a symlink of ours may have.
    """
    wanted = ((str(record.wanted.link), observed.link),) if observed.link is not None else ()
    places = [
        path
        for path, link in (*wanted, *observed.other_links)
        if link.kind is LinkKind.SYMLINK and link.target in ours
    ]
    return tuple(f"link {place}" for place in dict.fromkeys((record.link, *places)) if place)


def link_defects(
    record: Record, observed: ObservedDisk, target: str, ours: tuple[str, ...]
) -> tuple[str, ...]:
    """Name what is wrong with the link of a live disk; pure.

    Args:
        record: for the wanted link and the one that was made.
        observed: what is at the wanted path.
        target: the text that the symlink should have.
        ours: texts that a symlink of ours may have where it is not wanted any more.
    """
    wanted = record.wanted.link
    others = [
        path
        for path, link in observed.other_links
        if link.kind is LinkKind.SYMLINK and link.target in ours
    ]
    if record.link and record.link != str(wanted):
        others.insert(0, record.link)
    found = [f"link {path} is not wanted any more" for path in others]
    if wanted is None or observed.link is None:
        return tuple(found)
    if observed.link.kind is LinkKind.MISSING:
        found.append(f"link {wanted} is missing")
    elif observed.link.kind is not LinkKind.SYMLINK:
        found.append(f"link {wanted} is occupied by something else")
    elif observed.link.target != target:
        found.append(f"link {wanted} leads to {observed.link.target}, not to {target}")
    elif record.link != str(wanted):
        found.append(f"link {wanted} is not recorded")
    return tuple(found)

"""The part of a driver that is the same for every one: the node in the disk's jail.

A node is byre's if the log says that it was made there with that number, or that an attempt which
did not end well set out to make one there, which then found the place free.

Pure but for the two looks, which ask the kernel. May be imported by drivers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from reconciler.actions import Action
from reconciler.actions.jails import CheckJail, DropJailNode, MakeJailNode, Ours
from reconciler.actions.links import MakeFolder
from reconciler.drivers.linking import drop_folders
from reconciler.kernel.port import Kernel
from statemachine.jail import Jail
from statemachine.machine import LIVE, Desired
from statemachine.observed import LinkKind, LinkObservation, NodeObservation, ObservedDisk
from statemachine.record import Record

MODE: Final = 0o600


def look(kernel: Kernel, record: Record) -> NodeObservation | None:
    """Look where the wanted node is to be."""
    jail = record.wanted.jail
    return kernel.look_at_node(jail) if jail is not None else None


def look_at_others(kernel: Kernel, record: Record) -> tuple[tuple[str, LinkObservation], ...]:
    """Look where a node was made, or begun, that nobody wants any more."""
    if not (record.jail_node or record.nodes_begun):
        return ()
    places = dict.fromkeys((record.jail_node, *record.nodes_begun))
    unwanted = (path for path in places if path and path != _wanted_path(record))
    return tuple((path, kernel.read_link(Path(path))) for path in unwanted)


def check(record: Record, *, has_device: bool) -> list[Action]:
    """Plan the look at the place of a node that will be made, before anything else is."""
    jail = record.wanted.jail
    if jail is None or (record.desired is not Desired.LIVE and record.state not in LIVE):
        return []
    return [CheckJail(jail, _ours_at(record, str(jail.path)), has_device)]


def make(record: Record, observed: ObservedDisk) -> list[Action]:
    """Plan the wanted node with its missing folders; then the end of an old one."""
    jail = record.wanted.jail
    actions: list[Action] = []
    if jail is not None and observed.jail is not None:
        actions += [MakeFolder(Path(folder)) for folder in observed.jail.missing_parents]
        actions.append(MakeJailNode(jail, _ours_at(record, str(jail.path))))
    others = _others(record, observed)
    actions += [DropJailNode(Path(path), number, None) for path, number in others.items()]
    return [*actions, *drop_folders(record)] if others else actions


def drop(record: Record, observed: ObservedDisk) -> list[Action]:
    """Plan the end of every node of ours: where it was made, and where a crash may have left it."""
    jail = record.wanted.jail
    actions: list[Action] = []
    number = _left_in_place(record, observed)
    if observed.jail is not None and observed.jail.unsafe and _is_made(record):
        number = record.jail_number  # what is not good enough to make one may do to remove it
    if jail is not None and number:
        actions.append(DropJailNode(jail.path, number, jail))
    others = _others(record, observed)
    return [*actions, *(DropJailNode(Path(path), found, None) for path, found in others.items())]


def defects(record: Record, observed: ObservedDisk, number: str) -> tuple[str, ...]:
    """Name what is wrong with the node of a live disk; pure.

    Args:
        record: for the wanted node and the one that was made.
        observed: what is in its place.
        number: of the disk's device.
    """
    others = _others(record, observed)
    # One that is gone already, or replaced by somebody, is in the record still.
    if record.jail_node and record.jail_node != _wanted_path(record):
        others.setdefault(record.jail_node, record.jail_number)
    found = [f"node {path} is not wanted any more" for path in others]
    jail, there = record.wanted.jail, observed.jail
    if jail is None or there is None:
        return tuple(found)
    wrong = there.unsafe or there.flaw or _wrong(jail, there, number)
    if not wrong and (record.jail_node, record.jail_number) != (str(jail.path), number):
        wrong = "is not recorded"
    return (*found, f"node {jail.path}: {wrong}") if wrong else tuple(found)


def left_nodes(record: Record, observed: ObservedDisk) -> tuple[str, ...]:
    """Name the nodes of ours that a disk below live still has; pure."""
    left = list(_others(record, observed))
    if _left_in_place(record, observed):
        left.insert(0, _wanted_path(record))
    return tuple(f"node {path}" for path in left)


def is_as_recorded(record: Record, kernel: Kernel) -> bool:
    """Tell whether a live disk has the node that it should have, and the record knows it."""
    jail = record.wanted.jail
    if jail is None:
        return not record.jail_node
    there = kernel.look_at_node(jail)
    is_known = (record.jail_node, record.jail_number) == (str(jail.path), record.device_number)
    return is_known and not (there.flaw or there.unsafe or _wrong(jail, there, record.jail_number))


def _wrong(jail: Jail, there: NodeObservation, number: str) -> str:
    if there.kind is LinkKind.MISSING:
        return "is missing"
    if there.kind is not LinkKind.DEVICE:
        return "is occupied by something else"
    if there.number != number:
        return f"leads to {there.number}, not to {number}"
    if (there.uid, there.gid, there.mode) != (jail.uid, jail.gid, MODE):
        found = f"uid {there.uid}, gid {there.gid}, mode {there.mode:04o}"
        return f"has {found}, not uid {jail.uid}, gid {jail.gid}, mode {MODE:04o}"
    return ""


def _is_made(record: Record) -> bool:
    return bool(record.jail_node) and record.jail_node == _wanted_path(record)


def _wanted_path(record: Record) -> str:
    jail = record.wanted.jail
    return str(jail.path) if jail is not None else ""


def _ours_at(record: Record, path: str) -> Ours:
    """Return which nodes in a place are ours."""
    made = (record.jail_number,) if path and record.jail_node == path else ()
    return Ours(numbers=made, any_number=path in record.nodes_begun)


def _left_in_place(record: Record, observed: ObservedDisk) -> str:
    """Return the number of the node of ours that is in the wanted place; "" if there is none."""
    there, path = observed.jail, _wanted_path(record)
    number = there.number if there is not None else ""
    return number if number and number in _ours_at(record, path) else ""


def _others(record: Record, observed: ObservedDisk) -> dict[str, str]:
    """Return the nodes of ours at places that are not wanted any more, with their numbers."""
    return {
        path: there.target
        for path, there in observed.other_nodes
        if there.kind is LinkKind.DEVICE and there.target in _ours_at(record, path)
    }

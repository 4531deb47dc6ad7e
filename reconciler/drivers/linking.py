"""The part of a driver that is the same for every one: the disk's link and its folders.

Pure but for `look_at_others`, which asks the kernel. May be imported by drivers.
"""

from __future__ import annotations

from pathlib import Path

from reconciler.actions import Action
from reconciler.actions.links import CheckLink, DropFolder, DropLink, MakeFolder, MakeLink
from reconciler.kernel.port import Kernel
from statemachine.machine import Desired
from statemachine.observed import LinkKind, LinkObservation, ObservedDisk
from statemachine.record import Record


def look_at_others(kernel: Kernel, record: Record) -> tuple[tuple[str, LinkObservation], ...]:
    """Look where attempts that did not end well began links that nobody wants any more."""
    if not record.links_begun:
        return ()
    wanted = (str(record.wanted.link), record.link)
    paths = (path for path in record.links_begun if path not in wanted)
    return tuple((path, kernel.read_link(Path(path))) for path in paths)


def check_link(record: Record, ours: tuple[str, ...]) -> list[Action]:
    """Plan the look at the place of a link that will be made, before anything else is."""
    wanted = record.wanted.link
    if wanted is None or record.desired is not Desired.LIVE:
        return []
    return [CheckLink(wanted, ours)]


def make_link(
    record: Record, observed: ObservedDisk, target: str, ours: tuple[str, ...]
) -> list[Action]:
    """Plan the wanted link: its missing folders, then the symlink; then the end of an old one.

    Args:
        record: for the wanted link and the one that was made.
        observed: for the folders that are missing and what is in place.
        target: the text of the symlink; "" when only acting will tell.
        ours: texts that a symlink of ours may have now.
    """
    wanted = record.wanted.link
    actions: list[Action] = []
    if wanted is not None:
        missing = observed.link.missing_parents if observed.link else ()
        actions += [MakeFolder(Path(folder)) for folder in missing]
        is_free = observed.link is not None and observed.link.kind is LinkKind.MISSING
        actions.append(MakeLink(wanted, target, ours, record.link_taken, is_free=is_free))
    if record.link and record.link != str(wanted):
        actions.append(DropLink(Path(record.link), record.link_target))
    others = _others(observed, ours)
    actions += [DropLink(Path(path), text) for path, text in others.items()]
    if others or (record.link and record.link != str(wanted)):
        actions += drop_folders(record)
    return actions


def drop_link(record: Record, observed: ObservedDisk, ours: tuple[str, ...]) -> list[Action]:
    """Plan the end of every link of ours: where it was made, and where a crash may have left it."""
    places = _others(observed, ours)
    if record.link:
        places[record.link] = record.link_target
    wanted = record.wanted.link
    if wanted is not None and observed.link is not None:
        is_ours = observed.link.kind is LinkKind.SYMLINK and observed.link.target in ours
        if is_ours:
            places[str(wanted)] = observed.link.target
    return [DropLink(Path(path), target) for path, target in places.items()]


def _others(observed: ObservedDisk, ours: tuple[str, ...]) -> dict[str, str]:
    """Return the links of ours at places that are not wanted any more, with their texts."""
    return {
        path: link.target
        for path, link in observed.other_links
        if link.kind is LinkKind.SYMLINK and link.target in ours
    }


def drop_folders(record: Record) -> list[Action]:
    """Plan the removal of the folders that were made for the link, innermost first."""
    innermost_first = sorted(map(Path, record.made_folders), key=lambda f: -len(f.parts))
    return [DropFolder(folder) for folder in innermost_first]

"""Which disk a hint is about: by kernel name, by dm name, by link. Made of the records alone.

A hint that fits no disk is nobody's business here. May be imported by daemon.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from statemachine.jail import path_in
from statemachine.machine import State
from statemachine.observed import DeviceNumber
from statemachine.record import Record


class Index:
    """Names of things → names of disks. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._disks: defaultdict[str, set[str]] = defaultdict(set)
        self._things: dict[str, tuple[str, ...]] = {}
        self._folders: Counter[Path] = Counter()
        """How many links there are in each folder: they are asked for often, and to go through all
        disks each time would take longer than the rest of a commit."""
        self._seqs: dict[str, int] = {}

    def update(self, records: Iterable[Record]) -> None:
        """Take in records of some disks; what they had before is forgotten.

        A record that is older than what is known changes nothing: two threads may tell.
        """
        with self._lock:
            for record in records:
                if record.seq < self._seqs.get(record.name, 0):
                    continue
                self._seqs[record.name] = record.seq
                things = () if record.state is State.REMOVED else _things_of(record)
                if things != self._things.get(record.name, ()):  # most commits change none
                    self._replace(record.name, things)

    def _replace(self, disk: str, things: tuple[str, ...]) -> None:
        for thing in self._things.pop(disk, ()):
            self._forget(thing, disk)
        if things:
            self._things[disk] = things
        for thing in things:
            self._disks[thing].add(disk)
        self._folders.update(map(_folder_of, filter(_is_link, things)))

    def _forget(self, thing: str, disk: str) -> None:
        self._disks[thing].discard(disk)
        if not self._disks[thing]:
            del self._disks[thing]
        if _is_link(thing):
            folder = _folder_of(thing)
            self._folders[folder] -= 1
            if not self._folders[folder]:
                del self._folders[folder]

    def tidy(self) -> None:
        """Forget the disks that were removed: there is no end to them."""
        with self._lock:
            self._seqs = {name: seq for name, seq in self._seqs.items() if name in self._things}

    def find(self, thing: str) -> tuple[str, ...]:
        """Return the disks that have a device, a dm name or a link; mostly none or one."""
        with self._lock:
            return tuple(sorted(self._disks.get(thing, ())))

    def link_folders(self) -> frozenset[Path]:
        """Return the parent folders of all links that should be there now."""
        with self._lock:
            return frozenset(self._folders)


def _is_link(thing: str) -> bool:
    return thing.startswith("/")


def _folder_of(link: str) -> Path:
    return Path(link).parent


def _things_of(record: Record) -> tuple[str, ...]:
    things = [record.device_name]
    if record.device_number and record.device.startswith("/dev/mapper/"):
        things.append(f"dm-{DeviceNumber.parse(record.device_number).minor}")
    things += [f"loop{n}" for n in (record.cow_loop, record.base_loop) if n is not None]
    # A loop of somebody else that is in the way: when it goes, the disk can go on.
    holders = record.failure.holders if record.failure is not None else ()
    things += [Path(holder).name for holder in holders if holder.startswith("/dev/loop")]
    # The wanted one as well: what occupies its place may go, and then it can be made.
    links = (record.link, record.spec.get("link", ""), record.jail_node, path_in(record.spec))
    if any(links):
        things += [link for link in dict.fromkeys(links) if link]
    return tuple(things)

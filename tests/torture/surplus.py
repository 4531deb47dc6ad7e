"""What a host has that the records do not account for, and the other way round. Only looks.

Leaks are found by comparing whole sets: devices, nodes, loops, CoW files, links and the folders
made for them. May be imported by the torture tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import attrs

from reconciler.kernel.port import Kernel
from statemachine.machine import LIVE, State
from statemachine.record import Record

MAPPER = Path("/dev/mapper")


@attrs.frozen(kw_only=True)
class Place:
    """Where one torture's things are.

    `prefix` is what its devices are named with, `folder` holds all its files, the root included,
    and everything below `links` was made by byre.
    """

    root: Path
    prefix: str
    folder: Path
    links: Path


Things = dict[str, set[str]]


def compare(kernel: Kernel, place: Place, records: Iterable[Record]) -> list[str]:
    """Return every difference between what the records say there is and what there is."""
    there, due = look(kernel, place), expected(place, records)
    wrong = [
        f"{kind}: {name} is leaked" for kind in due for name in sorted(there[kind] - due[kind])
    ]
    return wrong + [
        f"{kind}: {name} is missing" for kind in due for name in sorted(due[kind] - there[kind])
    ]


def look(kernel: Kernel, place: Place) -> Things:
    """Return what the host has of one torture, as texts."""
    names = [line.name for line in kernel.dm_names() if line.name.startswith(place.prefix)]
    devices = [device for name in names if (device := kernel.dm(name)) is not None]
    below = [
        loop for loop in kernel.loops() if Path(loop.backing_path).is_relative_to(place.folder)
    ]
    return {
        "device": {f"{d.name} {'live' if d.live and not d.suspended else 'dead'}" for d in devices},
        "node": {n for n in kernel.list_folder(MAPPER) if n.startswith(place.prefix)},
        "loop": {f"loop{loop.number} on {loop.backing_path}" for loop in below},
        "file": set(kernel.list_folder(place.root / "cow")),
        "link": {f"{path} to {os.readlink(path)}" for path in _below(place.links, links=True)},  # noqa: PTH115
        "folder": {str(path) for path in _below(place.links, links=False)},
    }


def expected(place: Place, records: Iterable[Record]) -> Things:
    """Return what the records say that the host should have, in the same texts."""
    due: Things = {kind: set() for kind in ("device", "node", "loop", "file", "link", "folder")}
    for record in records:
        if record.state in LIVE:
            due["device"].add(f"{record.device_name} live")
            due["node"].add(record.device_name)
        if record.state in LIVE or record.state is State.ATTACHED:
            due["loop"].add(f"loop{record.cow_loop} on {record.cow_path}")
            due["loop"].add(f"loop{record.base_loop} on {record.wanted.base}")
        if record.state not in (State.ABSENT, State.REMOVED):
            due["file"].add(Path(record.cow_path).name)
        if record.link:
            due["link"].add(f"{record.link} to {MAPPER / record.device_name}")
            due["folder"] |= {
                str(folder)
                for folder in Path(record.link).parents
                if folder.is_relative_to(place.links)
            }
    return due


def _below(folder: Path, *, links: bool) -> list[Path]:
    """Return the links, or the folders with `folder` itself, that are there; empty without it."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.rglob("*") if path.is_symlink() is links]
    return found if links else [folder, *found]

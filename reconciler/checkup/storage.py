"""Checks of the state root: writable, room, reflinks, mount options, the log.

May be imported by doctor and tests.
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from reconciler.checkup.finding import Finding, Level, Patient, exists, read
from statemachine.errors import ByreError, LogDamaged
from statemachine.events import check_hash
from statemachine.logreader import LogReader

ROOM_BYTES_MIN: Final = 1 << 30
ROOM_SHARE_MIN: Final = 0.05
TAIL_EVENTS: Final = 100
"""How many of the newest events are checked here; `byre log verify` checks all."""

_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


def writable(patient: Patient) -> Finding:
    """Whether the root can be written, by writing a file without a name."""
    folder, root = patient.nearest, patient.root.path
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        return Finding(
            check="state-root",
            level=Level.BLOCKER,
            found=f"{folder} cannot be written: {error.strerror}",
            remedy="choose another root with --root or BYRE_ROOT, or run as its owner",
        )
    where = f"{root} is writable" if folder == root else f"{root} will be made in {folder}"
    return Finding(check="state-root", level=Level.OK, found=where)


def room(patient: Patient) -> Finding:
    """Whether CoW files can grow: a full file system destroys live snapshots."""
    try:
        found = os.statvfs(patient.nearest)
    except OSError as error:
        return Finding(check="free-space", level=Level.NOTE, found=f"unknown: {error.strerror}")
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    words = f"{_size(free)} of {_size(total)} are free"
    if free >= ROOM_BYTES_MIN and free >= total * ROOM_SHARE_MIN:
        return Finding(check="free-space", level=Level.OK, found=words)
    return Finding(
        check="free-space",
        level=Level.WARNING,
        found=f"{words}; a write that finds no room makes its snapshot invalid for ever",
        remedy="make room, or move the root to a larger file system",
    )


def reflink(patient: Patient) -> Finding:
    """Whether copies of a base cost nothing here; only the driver clone makes any."""
    refused = patient.reflink(patient.nearest)
    if not refused:
        return Finding(check="reflink", level=Level.OK, found="files on the root can share blocks")
    return Finding(
        check="reflink",
        level=Level.NOTE,
        found=f"no reflinks on the root ({refused}): clones are whole copies, without the holes",
        remedy="for the driver clone, a root on XFS or Btrfs",
    )


def nodev(patient: Patient) -> Finding:
    """Whether device nodes can be opened where jails are."""
    mounts = list(_mounts(read(patient.proc / "self/mountinfo")))
    if not mounts:
        found = "the mounts cannot be read"
        return Finding(check="nodev", level=Level.NOTE, found=found, remedy="mount /proc")
    asked = (patient.nearest, *patient.jail_folders)
    on = {path: mount for path in asked if (mount := _mount_of(path, mounts)) and mount.nodev}
    if not on:
        return Finding(check="nodev", level=Level.OK, found=f"none over {_list(asked)}")
    places = ", ".join(f"{path} (mount {mount.point})" for path, mount in on.items())
    return Finding(
        check="nodev",
        level=Level.WARNING,
        found=f"mounted nodev: {places}; a device node in a jail there cannot be opened",
        remedy="keep jails elsewhere, or mount without nodev; byre's own devices are in /dev",
    )


def log(patient: Patient) -> Finding:
    """Whether the log opens and its newest events are what was written."""
    path = patient.root.log
    if not exists(path):
        return Finding(check="log", level=Level.OK, found=f"{path} will be made on first use")
    try:
        with LogReader(path) as opened:
            events = opened.select(f"ORDER BY seq DESC LIMIT {TAIL_EVENTS}")
        for newer, older in itertools.pairwise(events):
            check_hash(older)
            if newer.prev_hash != older.hash:
                raise LogDamaged(f"event {newer.seq} does not follow {older.seq}", seq=newer.seq)
    except ByreError as error:
        remedy = error.hint or "`byre log verify` names the first bad event"
        return Finding(check="log", level=Level.BLOCKER, found=error.message, remedy=remedy)
    return Finding(check="log", level=Level.OK, found=f"the last {len(events)} events are intact")


@attrs.frozen
class _Mount:
    point: Path
    nodev: bool


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    """Read /proc/self/mountinfo (proc_pid_mountinfo(5)): field 5 the point, 6 its options."""
    for line in mountinfo.splitlines():
        words = line.split(" ")
        if len(words) > 6:  # noqa: PLR2004 - see above
            point = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), words[4])
            yield _Mount(Path(point), "nodev" in words[5].split(","))


def _mount_of(path: Path, mounts: list[_Mount]) -> _Mount | None:
    """Return the mount that a path is on: the longest point, of equal ones the last."""
    over = [mount for mount in mounts if path.is_relative_to(mount.point)]
    return max(reversed(over), key=lambda mount: len(mount.point.parts), default=None)


def _list(paths: tuple[Path, ...]) -> str:
    return ", ".join(map(str, paths))


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"

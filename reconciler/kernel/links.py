"""Symlinks and device nodes that lead to a disk: look, put, exchange, drop.

A link is changed only if it is literally the one that was expected. To replace one, the new
symlink is made beside it and the two names are exchanged in one step (renameat2,
RENAME_EXCHANGE), so readers see the old or the new one and never none; what came out is looked
at, and exchanged back if it was not what was expected. `/dev/mapper/NAME` made here is not in
udev's database, so it is dropped here too (kernel fact 7).

Raises OSError, and ForeignDevice for what is somebody else's.
May be imported by `linux` and tests.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Final

from reconciler.kernel import ioctl
from reconciler.kernel.loopdev import make_node
from statemachine.errors import ForeignDevice
from statemachine.observed import DeviceNumber, LinkKind, LinkObservation

_TRIES_MAX: Final = 3
"""How often the thing at a path may change between looking and acting."""


def read_link(path: Path) -> LinkObservation:
    """Return what is at a path, without following it.

    A parent that is no folder makes it OCCUPIED: somebody's file is in the way.
    """
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            # os.readlink: the literal text; a Path would tidy it up.
            return LinkObservation(kind=LinkKind.SYMLINK, target=os.readlink(path))  # noqa: PTH115
    except FileNotFoundError:
        return LinkObservation(kind=LinkKind.MISSING, missing_parents=_missing_parents(path))
    except NotADirectoryError:
        return LinkObservation(kind=LinkKind.OCCUPIED)
    if stat.S_ISBLK(found.st_mode):
        number = DeviceNumber(os.major(found.st_rdev), os.minor(found.st_rdev))
        return LinkObservation(kind=LinkKind.DEVICE, target=str(number))
    return LinkObservation(kind=LinkKind.OCCUPIED)


def put_link(path: Path, target: str, *, replaces: str | None) -> bool:
    """Make `path` a symlink to `target`. False if it is that already.

    Raises:
        ForeignDevice: something else than the symlink `replaces` is there.
        OSError: EINVAL where the file system cannot exchange names (9p, NFS), ENOENT without a
            parent, EAGAIN if the path keeps changing.
    """
    _clear_leftover(path)
    for _ in range(_TRIES_MAX):
        there = read_link(path)
        if there.kind is LinkKind.MISSING:
            with contextlib.suppress(FileExistsError):
                path.symlink_to(target)
                return True
        elif there.kind is LinkKind.SYMLINK and there.target == target:
            return False
        elif there.kind is LinkKind.SYMLINK and there.target == replaces:
            with contextlib.suppress(FileNotFoundError):
                _exchange(path, target, replaces)
                return True
        else:
            raise _foreign(path, there)
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))


def drop_link(path: Path, target: str) -> bool:
    """Remove the symlink at `path` if its text is `target`. False if nothing is there.

    Raises:
        ForeignDevice: anything else is there.
    """
    _clear_leftover(path)
    there = read_link(path)
    if there.kind is LinkKind.MISSING:
        return False
    if there.kind is not LinkKind.SYMLINK or there.target != target:
        raise _foreign(path, there)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def ensure_node(device: DeviceNumber, path: Path) -> bool:
    """Make the block device node if it is missing (no devtmpfs). False if it is there.

    Raises:
        ForeignDevice: something else is there, or a node of another number.
    """
    for _ in range(_TRIES_MAX):
        there = read_link(path)
        if there.kind is LinkKind.MISSING:
            with contextlib.suppress(FileExistsError):
                make_node(path, device)
                return True
        elif there.kind is LinkKind.DEVICE and there.target == str(device):
            return False
        else:
            raise _foreign(path, there)
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))


def _exchange(path: Path, target: str, replaces: str) -> None:
    """Swap in a new symlink, look at what came out, and swap back if it is not `replaces`."""
    beside = _beside(path)
    beside.symlink_to(target)
    try:
        ioctl.exchange(beside, path)
        came_out = read_link(beside)
        if came_out.kind is not LinkKind.SYMLINK or came_out.target != replaces:
            ioctl.exchange(beside, path)
            raise _foreign(path, came_out)
    finally:
        _clear_leftover(path)


def _clear_leftover(path: Path) -> None:
    """Remove the symlink that a crash inside `_exchange` left beside a path; nothing else."""
    beside = _beside(path)
    if beside.is_symlink():
        beside.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.byre-new")


def _missing_parents(path: Path) -> tuple[str, ...]:
    missing = [str(parent) for parent in path.parents if not os.path.lexists(parent)]
    return tuple(reversed(missing))


def _foreign(path: Path, there: LinkObservation) -> ForeignDevice:
    what = {
        LinkKind.SYMLINK: f"a symlink to {there.target}",
        LinkKind.DEVICE: f"the device node {there.target}",
        LinkKind.OCCUPIED: "a file or folder",
        LinkKind.MISSING: "nothing",
    }[there.kind]
    return ForeignDevice(
        f"{path} is not byre's: there is {what}",
        hint="byre never overwrites it; move it away or choose another link",
    )

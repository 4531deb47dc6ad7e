"""Symlinks and device nodes that lead to a disk: look, put, exchange, drop.

A link is changed only if it is literally the one that was expected. To replace one, the new
symlink is made beside it and the two names are exchanged in one step (renameat2,
RENAME_EXCHANGE), so readers see the old or the new one and never none; what came out is looked
at, and exchanged back if it was not what was expected. `/dev/mapper/NAME` made here is not in
udev's database, so it is dropped here too (kernel fact 7).

The folder of a link is walked to and opened once (`safepath`), and everything is done in the open
folder: a sandbox that owns a part of the path cannot lead it elsewhere.

Raises OSError, ForeignDevice for what is somebody else's, and UnsafePath.
May be imported by `linux` and tests.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Final

from reconciler.kernel import ioctl, safepath
from reconciler.kernel.newfile import sync_folder
from reconciler.kernel.safepath import Place
from statemachine.errors import ForeignDevice, UnsafePath
from statemachine.observed import DeviceNumber, LinkKind, LinkObservation

_OF_THE_KERNEL: Final = frozenset({"/dev", "/dev/mapper"})
"""Nobody but root and udev can put anything there, so the way there need not be looked at."""
_MISSING: Final = LinkObservation(kind=LinkKind.MISSING)
_TRIES_MAX: Final = 3
"""How often the thing at a path may change between looking and acting."""
_NAME_BYTES_MAX: Final = 255 - len("..byre-new")  # NAME_MAX, linux/limits.h


def read_link(path: Path) -> LinkObservation:
    """Return what is at a path, without following it.

    A parent that is no folder, or not to be passed, makes it OCCUPIED: somebody is in the way.
    """
    try:
        if _is_the_kernels(path):
            return _look(str(path), None)
        with safepath.place(path) as place:
            return look(place)
    except FileNotFoundError:
        return LinkObservation(kind=LinkKind.MISSING, missing_parents=_missing_parents(path))
    except NotADirectoryError:
        return LinkObservation(kind=LinkKind.OCCUPIED)
    except UnsafePath as error:
        return LinkObservation(kind=LinkKind.OCCUPIED, why=error.message)


def links_in(folder: Path) -> dict[str, str]:
    """Return the texts of the symlinks in a folder, by name; nothing when it is missing."""
    found: dict[str, str] = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                with contextlib.suppress(FileNotFoundError):
                    found[entry.name] = os.readlink(entry.path)  # noqa: PTH115 - the literal text
    return found


def look(place: Place) -> LinkObservation:
    """Return what is at a name in an open folder, without following it."""
    return _look(place.name, place.folder)


def _look(name: str, folder: int | None) -> LinkObservation:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            # os.readlink: the literal text; a Path would tidy it up.
            text = os.readlink(name, dir_fd=folder)
            return LinkObservation(kind=LinkKind.SYMLINK, target=text)
    except FileNotFoundError:
        return _MISSING
    if stat.S_ISBLK(found.st_mode):
        number = DeviceNumber(os.major(found.st_rdev), os.minor(found.st_rdev))
        return LinkObservation(kind=LinkKind.DEVICE, target=str(number))
    return LinkObservation(kind=LinkKind.OCCUPIED)


def put_link(path: Path, target: str, *, replaces: str | None) -> bool:
    """Make `path` a symlink to `target`, durable if it was another. False if it is that already.

    Raises:
        ForeignDevice: something else than the symlink `replaces` is there.
        UnsafePath: the way to it is not to be passed.
        OSError: EINVAL where the file system cannot exchange names (9p, NFS), ENOENT without a
            parent, EAGAIN if the path keeps changing.
    """
    with _place(path) as place:
        for _ in range(_TRIES_MAX):
            try:  # first, as mostly nothing is there
                os.symlink(target, place.name, dir_fd=place.folder)
            except FileExistsError:
                _clear_leftover(place)
            else:
                return True
            there = look(place)
            if there.kind is LinkKind.SYMLINK and there.target == target:
                return False
            if there.kind is LinkKind.SYMLINK and there.target == replaces:
                with contextlib.suppress(FileNotFoundError):
                    _exchange(path, place, target, replaces)
                    sync_folder(place.folder)
                    return True
            elif there.kind is not LinkKind.MISSING:
                raise _foreign(path, there)
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))


def drop_link(path: Path, target: str) -> bool:
    """Remove the symlink at `path` if its text is `target`, durable. False if nothing is there.

    Raises:
        ForeignDevice: anything else is there.
        UnsafePath: the way to it is not to be passed.
    """
    try:
        with _place(path) as place:
            _clear_leftover(place)
            there = look(place)
            if there.kind is LinkKind.MISSING:
                return False
            if there.kind is not LinkKind.SYMLINK or there.target != target:
                raise _foreign(path, there)
            os.unlink(place.name, dir_fd=place.folder)
            sync_folder(place.folder)
    except FileNotFoundError:
        return False
    return True


def ensure_node(device: DeviceNumber, path: Path) -> bool:
    """Make the block device node, 0600, if it is missing (no devtmpfs). False if it is there.

    Privilege: CAP_MKNOD.

    Raises:
        ForeignDevice: something else is there, or a node of another number.
        UnsafePath: the way to it is not to be passed.
    """
    if _is_the_kernels(path) and _is_node(_look(str(path), None), device):
        return False
    with _place(path) as place:
        for _ in range(_TRIES_MAX):
            there = look(place)
            if there.kind is LinkKind.MISSING:
                number = os.makedev(device.major, device.minor)
                with contextlib.suppress(FileExistsError):
                    os.mknod(place.name, 0o600 | stat.S_IFBLK, number, dir_fd=place.folder)
                    return True
            elif _is_node(there, device):
                return False
            else:
                raise _foreign(path, there)
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))


def _is_the_kernels(path: Path) -> bool:
    return str(path).rpartition("/")[0] in _OF_THE_KERNEL


def _is_node(there: LinkObservation, device: DeviceNumber) -> bool:
    return there.kind is LinkKind.DEVICE and there.target == str(device)


class _place:  # noqa: N801 - used as a function; around every change of a name
    """Open the folder of a name; somebody in the way there is foreign."""

    __slots__ = ("_opened", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened = _KernelPlace(path) if _is_the_kernels(path) else safepath.place(path)

    def __enter__(self) -> Place:
        try:
            return self._opened.__enter__()
        except NotADirectoryError as error:
            raise _foreign(self._path, LinkObservation(kind=LinkKind.OCCUPIED)) from error

    def __exit__(self, *_: object) -> None:
        self._opened.__exit__()


class _KernelPlace:
    """As `safepath.place`, without the walk."""

    __slots__ = ("_folder", "_folder_path", "_name")

    def __init__(self, path: Path) -> None:
        self._folder_path, _, self._name = str(path).rpartition("/")

    def __enter__(self) -> Place:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        self._folder = os.open(self._folder_path, flags)
        return Place(self._folder, self._name)

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)


def _exchange(path: Path, place: Place, target: str, replaces: str) -> None:
    """Swap in a new symlink, look at what came out, and swap back if it is not `replaces`."""
    new = beside(place)
    os.symlink(target, new.name, dir_fd=new.folder)
    try:
        ioctl.exchange(new.name, place.name, folder=place.folder)
        came_out = look(new)
        if came_out.kind is not LinkKind.SYMLINK or came_out.target != replaces:
            ioctl.exchange(new.name, place.name, folder=place.folder)
            raise _foreign(path, came_out)
    finally:
        _clear_leftover(place)


def _clear_leftover(place: Place) -> None:
    """Remove the symlink that a crash inside `_exchange` left beside a name; nothing else."""
    left = beside(place)
    if look(left).kind is LinkKind.SYMLINK:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(left.name, dir_fd=left.folder)


def beside(place: Place) -> Place:
    """Return the name for what shall replace a name; of one without room for more, a digest."""
    name = os.fsencode(place.name)
    text = hashlib.sha256(name).hexdigest() if len(name) > _NAME_BYTES_MAX else place.name
    return Place(place.folder, f".{text}.byre-new")


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

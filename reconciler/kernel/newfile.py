"""A new file that is whole or not there: written without a name, named when it is durable.

It is made without a name (O_TMPFILE), so a crash leaves nothing behind. Where the file system has
no such files, it is made under a temporary name that the next attempt clears away. The folder is
an open one that was walked to (`safepath`), so nobody swaps it in between.

Raises OSError; may be imported by the kernel layer and by what writes whole files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from reconciler.kernel import ioctl
from reconciler.kernel.safepath import Place

_NO_TMPFILE: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS})


def is_there(place: Place) -> bool:
    """Tell whether anything has the name, a dangling symlink too."""
    try:
        os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def made(place: Place, *, replace: bool = False, durable: bool = True) -> Iterator[int]:
    """Open a new file, 0600, that gets its name when the block ends well and is fsynced.

    Args:
        place: the name, and the open folder for it.
        replace: whether a regular file that has the name may be replaced.
        durable: whether to fsync; without, an fsync of the named file makes up for it.

    Raises:
        OSError: EEXIST if something has the name that is not to be replaced.
    """
    _refuse_taken(place, replace=replace)
    with _unnamed(place) as descriptor:
        yield descriptor
        if durable:
            os.fsync(descriptor)
        _refuse_taken(place, replace=replace)
        _name(descriptor, place, replace=replace)
    if durable:
        sync_folder(place.folder)


@contextlib.contextmanager
def scratch(place: Place) -> Iterator[int]:
    """Open a new file that never gets a name; it goes with the descriptor."""
    with _unnamed(place) as descriptor:
        yield descriptor


def sync_folder(folder: int) -> None:
    """Make the names in an open folder durable; it may be open by O_PATH only."""
    with ioctl.opened(".", os.O_RDONLY | os.O_DIRECTORY, folder=folder) as descriptor:
        os.fsync(descriptor)


def _refuse_taken(place: Place, *, replace: bool) -> None:
    try:
        found = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not replace or not stat.S_ISREG(found.st_mode):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), place.name)


@contextlib.contextmanager
def _unnamed(place: Place) -> Iterator[int]:
    """Open a file without a name, or with the temporary one, which is gone at the end."""
    try:
        flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        descriptor = os.open(".", flags, 0o600, dir_fd=place.folder)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        hidden = _hidden(place)
        _unlink(place.folder, hidden)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with ioctl.opened(hidden, flags, folder=place.folder) as made_hidden:
                yield made_hidden
        finally:
            _unlink(place.folder, hidden)
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _name(descriptor: int, place: Place, *, replace: bool) -> None:
    """Give the file its name: linked where nothing may be, renamed over what may be replaced."""
    folder, hidden = place.folder, _hidden(place)
    is_hidden = os.fstat(descriptor).st_nlink > 0
    if not replace:
        _link(hidden if is_hidden else descriptor, place.name, folder)
        return
    if not is_hidden:
        _unlink(folder, hidden)
        _link(descriptor, hidden, folder)
    try:
        os.rename(hidden, place.name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        _unlink(folder, hidden)
        raise


def _link(source: int | str, name: str, folder: int) -> None:
    """Link an open file, or a name of the folder; EEXIST if somebody has the new name.

    Python uses linkat() with AT_SYMLINK_FOLLOW, which an open file needs (open(2), O_TMPFILE),
    when a folder's descriptor is given.
    """
    if isinstance(source, int):
        text, is_open = f"/proc/self/fd/{source}", True
    else:
        text, is_open = source, False
    os.link(text, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=is_open)


def _hidden(place: Place) -> str:
    return f".{place.name}.byre-partial"


def _unlink(folder: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)

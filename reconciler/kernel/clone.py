"""A private copy of a file: a reflink where the file system has it, else a sparse copy.

The copy has no name until it is whole and durable (`newfile`), so a crash leaves nothing behind.
Which method was used is returned, as falling back is never silent (arcbox PR 665).

Raises OSError, IdentityMismatch and UnsafePath; may be imported by `linux` and tests.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from reconciler.kernel import extents, newfile, safepath
from reconciler.kernel.files import make_parents, mismatch, same_inode
from reconciler.kernel.port import CloneMethod
from statemachine.fileidentity import FileIdentity
from statemachine.units import Bytes


def clone_file(
    source: Path,
    target: Path,
    size: Bytes,
    *,
    expected: FileIdentity | None = None,
    durable: bool = True,
) -> CloneMethod:
    """Make `target` a private copy of `source`, 0600, `size` long.

    Args:
        source: the base, a regular file; a symlink at its end is followed.
        target: must not exist; missing parents are made, 0700.
        size: of the copy; zeros follow where the base ends.
        expected: which file the source must be; None for whichever is there.
        durable: whether to return only when the copy survives a power cut.

    Raises:
        IdentityMismatch: the source is another file.
        UnsafePath: another user could replace the target.
        OSError: EEXIST if there is a target; EFBIG if the source is longer than `size`.
    """
    make_parents(target)
    with safepath.place(target, own=True) as place:
        if newfile.is_there(place):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        with safepath.regular(source, os.O_RDONLY, follow=True) as base:
            found = os.fstat(base)
            if expected is not None and not same_inode(found, expected):
                raise mismatch(source, found, expected)
            if found.st_size > size.count:
                raise OSError(errno.EFBIG, f"it has {found.st_size} bytes, more than {size.count}")
            with newfile.made(place, durable=durable) as copy:
                method = copy_into(base, copy, found.st_size)
                os.ftruncate(copy, size.count)
    return method


def shares_blocks(path: Path) -> bool:
    """Tell whether a file can be shared with another in its folder; leaves none there."""
    with (
        safepath.regular(path, os.O_RDONLY, follow=False) as source,
        safepath.place(path, own=True) as place,
        newfile.scratch(place) as target,
    ):
        return extents.reflink(source, target)


def rename_over(
    source: Path, target: Path, *, expected: FileIdentity, replaces: FileIdentity
) -> bool:
    """Rename a file over another in their folder, durable; see `Kernel.rename_over`.

    Between the look and the rename only root and we can put another file there, as the folder
    holds what is ours.

    Raises:
        IdentityMismatch: one of them is another file.
        UnsafePath: another user could replace them there.
        OSError: ENOENT if neither is `expected`.
    """
    assert source.parent == target.parent, (source, target)
    with safepath.place(target, own=True) as (folder, name):
        there = _stat(folder, name)
        if there is not None and same_inode(there, expected):
            newfile.sync_folder(folder)
            return False
        if there is not None and not same_inode(there, replaces):
            raise mismatch(target, there, replaces)
        found = os.stat(source.name, dir_fd=folder, follow_symlinks=False)
        if not same_inode(found, expected):
            raise mismatch(source, found, expected)
        os.rename(source.name, name, src_dir_fd=folder, dst_dir_fd=folder)
        newfile.sync_folder(folder)
    return True


def _stat(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def copy_into(source: int, target: int, length: int) -> CloneMethod:
    """Make an empty open file a copy of another; holes stay holes. Its size is left open."""
    if extents.reflink(source, target):
        return CloneMethod.REFLINK
    extents.copy_data(source, target, length)
    return CloneMethod.SPARSE_COPY

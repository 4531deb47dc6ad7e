"""A private copy of a base image: a reflink where the file system has it, else a sparse copy.

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
from statemachine.observed import FileIdentity
from statemachine.units import Bytes


def clone_file(
    source: Path, target: Path, size: Bytes, *, expected: FileIdentity | None = None
) -> CloneMethod:
    """Make `target` a private copy of `source`, 0600 and durable, `size` long.

    Args:
        source: the base, a regular file; a symlink at its end is followed.
        target: must not exist; missing parents are made, 0700.
        size: of the copy; zeros follow where the base ends.
        expected: which file the source must be; None for whichever is there.

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
            with newfile.made(place) as copy:
                method = copy_into(base, copy, found.st_size)
                os.ftruncate(copy, size.count)
    return method


def copy_into(source: int, target: int, length: int) -> CloneMethod:
    """Make an empty open file a copy of another; holes stay holes. Its size is left open."""
    if extents.reflink(source, target):
        return CloneMethod.REFLINK
    extents.copy_data(source, target, length)
    return CloneMethod.SPARSE_COPY

"""Two questions of `byre doctor` that need the kernel's own answer: dm targets and reflinks.

Raises OSError from `dm_targets`, for the caller to say what it means; makes two files without a
name for `reflink_refusal`, which are gone when it returns. May be imported by checkup and tests.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from reconciler.kernel import ioctl
from reconciler.kernel.dm import DeviceMapper

_BLOCK: Final = bytes(4096)


def dm_targets(control: Path) -> frozenset[str]:
    """Return the names of the device-mapper targets that are loaded now; raises OSError."""
    return DeviceMapper(control=control).target_types()


def reflink_refusal(folder: Path) -> str:
    """Return why files in a folder cannot share blocks (FICLONE); "" when they can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as base, tempfile.TemporaryFile(dir=folder) as copy:
            base.write(_BLOCK)
            base.flush()
            os.fsync(base.fileno())
            ioctl.call(copy.fileno(), ioctl.FICLONE, base.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""

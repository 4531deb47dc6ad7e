"""How many bytes a file occupies: apart from `files`, as who lists disks asks for nothing else.

Raises OSError; may be imported by the kernel layer and by thishost.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from statemachine.units import Bytes

_STAT_BLOCK_BYTES: Final = 512  # st_blocks, whatever the file system's own block is


def allocated(path: Path | str) -> Bytes:
    """Return how many bytes a file occupies; 0 when it is missing."""
    try:
        return Bytes(os.lstat(path).st_blocks * _STAT_BLOCK_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return Bytes(0)

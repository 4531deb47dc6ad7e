"""Reading and writing whole blocks of a device or file past the page cache (O_DIRECT).

What a write call has taken is then in the device, and not in a cache that a crashed process's
successor would read it from. May be imported by the torture tests.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.torture.contents import BLOCK

_READ_BYTES: Final = 1 << 20


class Direct:
    """An open device or file. Close it, or use it as a context manager.

    Args:
        path: what to open, for reading and writing.
        sync: whether each write is flushed before it returns.
    """

    def __init__(self, path: Path, *, sync: bool = False) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC | (os.O_DSYNC if sync else 0)
        self._descriptor = os.open(path, flags)
        # O_DIRECT takes memory at page borders, which is what mmap gives.
        self._block = mmap.mmap(-1, BLOCK)

    def write(self, block: int, data: bytes) -> None:
        """Write one block."""
        self._block[:] = data
        written = os.pwritev(self._descriptor, [self._block], block * BLOCK)
        assert written == BLOCK, f"{self.path}: {written} of {BLOCK} bytes were written"

    def flush(self) -> None:
        """Have all that was written survive a power cut."""
        os.fsync(self._descriptor)

    def read_all(self) -> bytes:
        """Return every byte."""
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        found = bytearray()
        with mmap.mmap(-1, _READ_BYTES) as buffer:
            while len(found) < size:
                length = os.preadv(self._descriptor, [buffer], len(found))
                assert length > 0, f"{self.path} ends at {len(found)} of {size} bytes"
                found += buffer[:length]
        return bytes(found)

    def close(self) -> None:
        """Close it; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._block.close()
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_all(path: Path) -> bytes:
    """Return every byte of a device or file, from the device itself."""
    with Direct(path) as direct:
        return direct.read_all()

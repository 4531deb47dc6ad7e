"""A writer whose two counters, at both ends of a disk, are the same in any image of one moment.

May be imported by the kernel tests.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CHUNK: Final = 4096
_PLACES: Final = 1000


@contextmanager
def counting(device: Path, size: int) -> Iterator[None]:
    """Have a process count in the first and in the last chunk of a device, and write between.

    Args:
        device: what is written to.
        size: its size in bytes; more than a thousand chunks.
    """
    pid = os.fork()
    if pid == 0:
        _count(device, size)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def assert_of_one_moment(image: Path) -> None:
    """Check that a copy of the device has both counters as they were at one moment."""
    raw = image.read_bytes()
    first, last = (int.from_bytes(raw[at : at + 8], "little") for at in (0, len(raw) - CHUNK))
    assert 0 <= first - last <= 1
    assert first > 0


def _count(device: Path, size: int) -> None:
    descriptor = os.open(device, os.O_WRONLY | os.O_DSYNC)
    number = 0
    while True:
        number += 1
        block = number.to_bytes(8, "little") * (CHUNK // 8)
        os.pwrite(descriptor, block, 0)
        os.pwrite(descriptor, block, (number % _PLACES + 1) * CHUNK)
        os.pwrite(descriptor, block, size - CHUNK)

"""Writing out what the page cache holds for a live device, before its user closes it.

Whoever writes to a device without O_DIRECT leaves dirty pages, and the kernel writes them when the
last one closes it: that close, often the end of a VMM, then takes as long as they need, up to a
minute on a slow disk. A flush that began while the user was still at work leaves little for it.

A thread for each flush, a few at most. It reads nothing and changes nothing that can be seen. It
has the device open meanwhile, and lets go when it is done, when nobody else has it open any more,
or after a time. May be imported by `linux` only.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Final

from reconciler.kernel import ioctl
from reconciler.kernel.dm import DeviceMapper
from reconciler.kernel.dmstruct import Flag, Reply

FLUSHES_MAX: Final = 4
"""How many at once: more would only wait for each other at the same disk."""
FLUSH_S_MAX: Final = 300.0
_PIECE_BYTES: Final = 8 << 20
"""What is waited for at a time: between two of them it is seen whether it is still wanted."""


class Flushes:
    """The flushes that this process has begun, and their descriptors. Safe for several threads."""

    def __init__(self, dm: DeviceMapper, dev: Path) -> None:
        self._dm = dm
        self._dev = dev
        self._lock = threading.Lock()
        self._running: dict[str, int] = {}
        """Descriptors by the device's UUID."""

    def descriptors(self) -> frozenset[int]:
        """Return our own descriptors, which are nobody's use of a device."""
        with self._lock:
            return frozenset(self._running.values())

    def start(self, uuid: str) -> bool:
        """Begin to flush a device and return at once; False if that is not possible or going on.

        A suspended one is left alone: what is written to it waits, and so would we.

        Raises:
            OSError: it cannot be looked at or opened.
        """
        info = self._dm.info(uuid=uuid)
        if info is None or info.has(Flag.SUSPEND):
            return False
        with self._lock:
            if uuid in self._running or len(self._running) >= FLUSHES_MAX:
                return False
            node = self._dev / f"dm-{info.device.minor}"
            descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            self._running[uuid] = descriptor
        if not self._is_wanted(uuid, descriptor, info):  # the number is another's by now
            self._end(uuid, descriptor)
            return False
        words = (uuid, descriptor, info)
        threading.Thread(target=self._flush, args=words, name="byre-flush", daemon=True).start()
        return True

    def flush(self, uuid: str) -> None:
        """Flush a device and wait for it; a suspended one, or none, is left alone.

        Raises:
            OSError: it cannot be looked at, opened or written.
        """
        info = self._dm.info(uuid=uuid)
        if info is None or info.has(Flag.SUSPEND):
            return
        with ioctl.opened(self._dev / f"dm-{info.device.minor}", os.O_RDONLY) as descriptor:
            if os.fstat(descriptor).st_rdev == os.makedev(info.device.major, info.device.minor):
                os.fsync(descriptor)

    def _flush(self, uuid: str, descriptor: int, info: Reply) -> None:
        give_up_s = time.monotonic() + FLUSH_S_MAX
        try:
            with contextlib.suppress(OSError):  # whoever uses the device is told of what is wrong
                for offset in range(0, os.lseek(descriptor, 0, os.SEEK_END), _PIECE_BYTES):
                    ioctl.write_out(descriptor, offset, _PIECE_BYTES)
                    is_wanted = self._is_wanted(uuid, descriptor, info)
                    if not is_wanted or time.monotonic() > give_up_s:
                        break
        finally:
            self._end(uuid, descriptor)

    def _is_wanted(self, uuid: str, descriptor: int, info: Reply) -> bool:
        """Tell whether it is the same device, running, and somebody else has it open."""
        now = self._dm.info(uuid=uuid)
        if now is None or now.device != info.device or now.has(Flag.SUSPEND):
            return False
        number = os.makedev(now.device.major, now.device.minor)
        return os.fstat(descriptor).st_rdev == number and now.open_count > 1

    def _end(self, uuid: str, descriptor: int) -> None:
        """Close; if we are the last to, the kernel writes the rest now, and this thread waits."""
        os.close(descriptor)
        with self._lock:
            self._running.pop(uuid, None)

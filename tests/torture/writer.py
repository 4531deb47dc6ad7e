"""A process that writes to a device or file all the while, each write through to the disk below.

Block after block, round and round: how many writes were done says what every block holds. It ends
at the first error, and says which one. May be imported by the torture and the kernel tests.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
import time
import warnings
from pathlib import Path
from typing import Final

from tests.kernel.cli import until
from tests.torture.contents import BLOCK, Contents, stamped
from tests.torture.direct import Direct

_WRITTEN: Final = struct.Struct("<Q")
_STOP_AT: Final = 8
_ERRNO_AT: Final = 12
_PATIENCE_S: Final = 60.0
_PAUSE_S: Final = 0.1
"""Between two writes: whoever is to be disturbed by them needs the processor as well."""


class Writer:
    """A forked writer. Make it while this process has one thread; `stop` it.

    Args:
        path: the device or file; it has its full size already.
        name: what the blocks are stamped with.
        base: what was there before the first write, all of it.
    """

    def __init__(self, path: Path, name: str, base: bytes) -> None:
        self._name = name
        self._base = base
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: no thread is running here
            self._pid: int = os.fork()
        if self._pid == 0:
            self._be_the_child(path)

    @property
    def written(self) -> int:
        """How many writes are done."""
        return int(_WRITTEN.unpack_from(self._shared, 0)[0])

    def until_it_writes_on(self) -> None:
        """Wait until another write was begun and done from now on."""
        enough = self.written + 2
        until(
            lambda: self.written >= enough or self._failed(),
            f"{self._name} is still written to",
            timeout_s=_PATIENCE_S,
        )
        assert not self._failed(), f"writing {self._name} failed: {os.strerror(self._errno)}"

    def stop(self) -> Contents:
        """End it between two writes; returns what must be there now."""
        self._shared[_STOP_AT] = 1
        pid, status = os.waitpid(self._pid, 0)
        assert self._pid == pid
        self._pid = 0
        assert not self._errno, f"writing {self._name} failed: {os.strerror(self._errno)}"
        assert os.waitstatus_to_exitcode(status) == 0, f"the writer of {self._name}: {status}"
        contents = Contents(self._name, 1, self._base)
        blocks = len(self._base) // BLOCK
        done = range(max(0, self.written - blocks), self.written)
        contents.settle({number % blocks: number for number in done})
        return contents

    def kill(self) -> None:
        """End it, whatever it is doing; idempotent."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    @property
    def _errno(self) -> int:
        return self._shared[_ERRNO_AT]

    def _failed(self) -> bool:
        return self._errno != 0

    def _be_the_child(self, path: Path) -> None:
        """Write until told to stop; never returns into the test."""
        code = 1
        try:
            signal.alarm(0)  # pytest-timeout's clock is the parent's
            self._write(path)
            code = 0
        except OSError as error:
            self._shared[_ERRNO_AT] = error.errno or 255
        finally:
            os._exit(code)

    def _write(self, path: Path) -> None:
        blocks = len(self._base) // BLOCK
        number = 0
        with Direct(path, sync=True) as direct:
            while not self._shared[_STOP_AT]:
                block = number % blocks
                direct.write(block, stamped(self._name, 1, block, number))
                number += 1
                _WRITTEN.pack_into(self._shared, 0, number)
                time.sleep(_PAUSE_S)

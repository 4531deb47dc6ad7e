"""A node of the kernel's that is opened by the first who needs it and kept: a driver's control.

`/dev/mapper/control` and `/dev/loop-control` keep nothing for a descriptor, and any number of
threads may make their calls on one. To open and close it costs more than most of these calls.
While it is open the kernel does not unload the driver behind it.

Raises OSError; may be imported by `dm`, `loopdev` and tests.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path


class KeptNode:
    """One node, open for reading and writing from the first question on."""

    def __init__(self, path: Path) -> None:
        """Take the path; opens nothing yet."""
        self.path = path
        self._descriptor = -1
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Return the open descriptor; raises OSError, and asks anew the next time."""
        if self._descriptor < 0:
            with self._lock:
                if self._descriptor < 0:
                    self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        return self._descriptor

    def __del__(self) -> None:
        """Close it with its last user."""
        if self._descriptor >= 0:
            os.close(self._descriptor)

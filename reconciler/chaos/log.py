"""An event log whose commits can fail and can be the last thing that a process does.

Each commit passes the simulated kernel's faults as one more change, so a crash point is counted
there whether it is a call of the port or a commit. May be imported by `world` only.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from reconciler.kernel.sim import Faults
from statemachine.batch import Request
from statemachine.eventlog import EventLog
from statemachine.events import NewEvent
from statemachine.names import LOG_NAME

COMMIT: Final = "log_append"
"""What a commit is called among the calls of the port."""


@functools.cache
def new_log() -> bytes:
    """Return the file of a log without events: made once, as making one takes a while."""
    with tempfile.TemporaryDirectory(prefix="byre-chaos-") as folder:
        path = Path(folder) / LOG_NAME
        EventLog(path).close()
        return path.read_bytes()


class FragileLog(EventLog):
    """An event log on a simulated host.

    Args:
        path: the database file, a real one.
        faults: what may go wrong with a commit.
        boot_id: this boot.
        clock_ns: UTC in nanoseconds.
    """

    def __init__(
        self, path: Path, faults: Faults, *, boot_id: str, clock_ns: Callable[[], int]
    ) -> None:
        super().__init__(path, boot_id=boot_id, clock_ns=clock_ns)
        self._faults = faults

    def commit(self, events: Sequence[NewEvent]) -> Request:
        """Append events, unless the process dies or the disk fails before; see `EventLog`."""
        names = tuple(f"{event.disk} {event.type}" for event in events)
        return self._faults.around(
            COMMIT, names, {}, change=True, work=lambda: super(FragileLog, self).commit(events)
        )

"""A bounded pool of threads that takes keys from the queue and reconciles them.

The barrier around one disk's pass is here: whatever goes wrong with one disk is logged once and
tried again later, and never stops the others. A damaged log is no matter of one disk: after it no
further pass is made, and whoever runs the workers is told. May be imported by daemon and the API.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import structlog

from reconciler.reconcile import Settled
from reconciler.workqueue import WorkQueue
from statemachine.errors import ByreError, LogDamaged

GET_TIMEOUT_S: Final = 3600.0
"""A worker waits this long for a key before it waits again; shutting down wakes it."""
AFTER_ERROR_S: Final = 5.0
"""When to look again at a disk whose pass ended with an error of its own."""
JOIN_S: Final = 60.0
"""How long to wait for the transitions in flight at the end."""


class Workers:
    """Threads that call `reconcile` with each key, one key at a time each.

    Args:
        queue: where keys come from; shut it down to end the workers.
        reconcile: one pass; returns when to look again.
        count: how many threads.
        settled: is told of each pass that ended, in the worker's thread, and sees to the look at
            what was done (`Settled.is_done`).
        damaged: is told once when the log turns out to be damaged, in the worker's thread.
    """

    def __init__(
        self,
        queue: WorkQueue[str],
        reconcile: Callable[[str], Settled],
        count: int,
        *,
        settled: Callable[[str, Settled], None] = lambda _name, _how: None,
        damaged: Callable[[LogDamaged], None] = lambda _error: None,
    ) -> None:
        self.damage: LogDamaged | None = None
        """Why no further pass is made; None while all is well."""
        self._queue = queue
        self._reconcile = reconcile
        self._settled = settled
        self._damaged = damaged
        self._damage_lock = threading.Lock()
        self._log = structlog.get_logger("byre.workers")
        self._threads = [
            threading.Thread(target=self._work, name=f"byre-worker-{number}", daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def join(self) -> bool:
        """Wait for the threads after the queue was shut down; False if one is still at work."""
        for thread in self._threads:
            thread.join(JOIN_S)
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while True:
            name = self._queue.get(GET_TIMEOUT_S)
            if name is None:
                if self._queue.shutting_down:
                    return
                continue
            try:
                if self.damage is None:
                    self._pass(name)
            finally:
                self._queue.done(name)

    def _pass(self, name: str) -> None:
        try:
            how = self._reconcile(name)
        except LogDamaged as error:
            self._stop_for(error)
            return
        except ByreError as error:
            self._log.error("pass failed", disk=name, error=error.message, hint=error.hint)
            how = Settled(again_s=AFTER_ERROR_S, why=error.message, was_seen=False)
        except Exception as error:  # noqa: BLE001 - the barrier around one disk's pass
            self._log.exception("pass failed by a mistake in byre", disk=name)
            how = Settled(again_s=AFTER_ERROR_S, why=repr(error), was_seen=False)
        again_s = None if how.is_done else how.again_s  # that look is made by who is told
        for delay_s in (again_s, how.lapses_s):
            if delay_s is not None:
                self._queue.add_after(name, delay_s)
        self._settled(name, how)

    def _stop_for(self, damage: LogDamaged) -> None:
        with self._damage_lock:
            is_first, self.damage = self.damage is None, self.damage or damage
        if is_first:
            self._damaged(damage)

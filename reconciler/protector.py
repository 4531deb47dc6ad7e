"""Doing what `protect` decided: grow a CoW under its live device, freeze, thaw, tell of a level.

Not transitions: nothing is taken away, each can be done again without harm, and when the host is
full there may be no room to say so first. So the kernel comes first here and the event after it;
a crash in between is seen as a difference by the next pass, which does it again and tells then.

May be imported by reconcile.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reconciler.drivers.port import View
from reconciler.kernel.port import Kernel
from reconciler.protect import Freeze, Grow, NoteLevel, Protection, Thaw
from statemachine import payloads
from statemachine.errors import TransientError
from statemachine.names import DmUuid
from statemachine.record import Record

Append = Callable[[Record, object], object]
"""Appends one event of a disk, decided upon its record."""


class Protector:
    """Acts on live devices for their data's sake.

    Args:
        kernel: what is changed.
        append: how the log is told.
        now_ns: UTC.
    """

    def __init__(self, kernel: Kernel, append: Append, now_ns: Callable[[], int]) -> None:
        self._kernel = kernel
        self._append = append
        self._now_ns = now_ns

    def do(self, view: View, step: Protection) -> None:
        """Do one step and record it.

        Raises:
            ActionError: the kernel refused; nothing is recorded.
        """
        match step:
            case Grow():
                self._grow(view, step)
            case Freeze():
                self._freeze(view.record, step)
            case Thaw():
                self._thaw(view.record, step)
            case NoteLevel():
                self._append(
                    view.record,
                    payloads.CowThresholdCrossed(
                        percent=step.percent,
                        used_bytes=step.room.used.count,
                        capacity_bytes=step.room.capacity.count,
                    ),
                )

    def _grow(self, view: View, step: Grow) -> None:
        record, loop = view.record, view.observed.cow_loop
        assert record.cow is not None, "a live disk has a CoW file"
        if loop is None:
            msg = f"the loop device of {record.cow_path} cannot be looked at"
            raise TransientError(msg, kind="again")
        self._kernel.grow_file(Path(record.cow_path), record.cow, step.size)
        self._kernel.loop_grow(loop)
        now = self._kernel.loop(loop.number, named=False)
        if now is None or now.size.to_bytes() < step.size:
            msg = f"{loop.path} did not grow to {step.size.count} bytes with {record.cow_path}"
            raise TransientError(msg, kind="again")
        self._append(
            record,
            payloads.CowGrown(
                from_bytes=record.cow.size.count,
                to_bytes=step.size.count,
                used_bytes=step.room.used.count,
                bound_bytes=step.room.bound.count,
            ),
        )

    def _freeze(self, record: Record, step: Freeze) -> None:
        self._kernel.dm_suspend(str(DmUuid(record.id, record.generation)))
        self._append(record, payloads.DiskFrozen(message=step.message, cause=step.cause))

    def _thaw(self, record: Record, step: Thaw) -> None:
        assert record.frozen is not None, "only a frozen disk is thawed"
        self._kernel.dm_resume(str(DmUuid(record.id, record.generation)))
        frozen_ns = self._now_ns() - record.frozen.since
        self._append(record, payloads.DiskThawed(message=step.message, frozen_ns=frozen_ns))

"""The part of the dm-snapshot driver about CoW files that are made smaller while a disk is paused.

Pure; may be imported by dm_snapshot and its appraisal.
"""

from __future__ import annotations

from pathlib import Path

from reconciler.actions import Action, CompactCow, DropNext, SwapCow
from statemachine.machine import State
from statemachine.record import Record


def next_path(cow: Path) -> Path:
    """Return where the new store is until it has the CoW file's name."""
    return cow.with_name(f".{cow.name}.byre-partial")


def left(record: Record) -> tuple[str, ...]:
    """Say what is to be done about the CoW file of a paused disk."""
    if record.state is not State.PAUSED or record.cow is None:
        return ()
    if record.cow_next is not None:
        return (f"{record.cow_path} has a smaller store beside it",)
    return (f"{record.cow_path} is to be made smaller",) if record.sparsify_due else ()


def at_rest(record: Record, cow: Path) -> list[Action]:
    """Plan the next step for a paused disk: the new store, or its name."""
    if record.state is not State.PAUSED or record.cow is None:
        return []
    if record.cow_next is not None:
        return [SwapCow(cow, next_path(cow), record.cow_next, record.cow)]
    if not record.sparsify_due:
        return []
    base, pin = record.wanted.base, record.base
    return [CompactCow(cow, next_path(cow), record.cow, base, pin, record.size)]


def before_writing(record: Record, cow: Path) -> list[Action]:
    """Plan the end of a new store that has no name yet, before the old one is written to."""
    return [DropNext(next_path(cow), record.cow_next)] if record.cow_next is not None else []

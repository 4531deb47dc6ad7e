"""Wishes of their own commands: a link that moves, a larger disk, a smaller CoW file.

Each is a later declaration of one disk or of two, decided upon their records. May be imported by
the API.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from reconciler import linkmoves, sizes
from reconciler.declare import Declared, Declarer
from statemachine.events import NewEvent
from statemachine.units import Bytes

Answers = list[tuple[str, NewEvent | None]]


def hand_over(declarer: Declarer, new: str, old: str) -> list[Declared]:
    """Declare that a disk's link belongs to another disk from now on; idempotent.

    Args:
        declarer: who says so.
        new: the disk that gets it.
        old: the disk that has it.

    Raises:
        NoSuchDisk: one of them was never declared.
        UsageError, RefusedError: see `linkmoves.by_command`.
    """

    def decide() -> Answers:
        winner, loser = declarer.known(new), declarer.known(old)
        found = linkmoves.by_command(winner, loser)
        if found is None:
            return [(old, None), (new, None)]
        without = attrs.evolve(loser.wanted, link=None)
        with_it = attrs.evolve(winner.wanted, link=found.link)
        return [
            (old, declarer.again(loser, without, why="link", moves=[found])),
            (new, declarer.again(winner, with_it, why="link", moves=[found])),
        ]

    return declarer.decided(decide)


def grow(
    declarer: Declarer, name: str, *, size: Bytes | None, cow_max: Bytes | None
) -> list[Declared]:
    """Declare that a disk, or what its CoW file may become, is larger from now on; idempotent.

    Raises:
        NoSuchDisk: it was never declared.
        SpecError, RefusedError: see `sizes.grown`.
    """

    def decide() -> Answers:
        record = declarer.known(name)
        spec = sizes.grown(record, size=size, cow_max=cow_max)
        is_new = spec != record.wanted
        return [(name, declarer.again(record, spec, why="grow") if is_new else None)]

    return declarer.decided(decide)


def sparsify(declarer: Declarer, names: Sequence[str]) -> list[Declared]:
    """Declare that the CoW files of paused disks are to be made smaller, once.

    Raises:
        NoSuchDisk: one of them was never declared.
        RefusedError: one is not paused, or has no CoW file; nothing was recorded for any.
    """

    def one(name: str) -> tuple[str, NewEvent | None]:
        record = declarer.known(name)
        sizes.refuse_to_sparsify(record)
        if record.sparsify_due:
            return name, None
        return name, declarer.again(record, record.wanted, why="sparsify", sparsify=True)

    return declarer.decided(lambda: [one(name) for name in dict.fromkeys(names)])

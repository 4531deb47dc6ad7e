"""The process dies, and dies again while it recovers, before and after anything durable.

In CI each scenario takes some pairs, always the same ones; HYPOTHESIS_PROFILE=long takes them all.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.crashing import SCENARIOS, points_of, points_of_recovery, prepared

SPARED = ("whole-way-up", "rewind-paused", "remove-with-point")
NAMES = [name for name in SCENARIOS if name not in SPARED]
PAIRS_MAX = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 16
"""Of one scenario."""


def all_pairs(folder: Path, name: str) -> list[tuple[int, int]]:
    """Return every (point of the scenario, point of the recovery from it)."""
    return [
        (first, second)
        for first in (0, *points_of(folder, name).durable)
        for second in (0, *points_of_recovery(folder, name, first).durable)
    ]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NAMES)
def test_a_crash_while_recovering_from_a_crash_is_made_good(
    folder: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    pairs = all_pairs(folder, name)
    dice = random.Random(name)  # noqa: S311 - the same ones at every run
    tried = sorted(dice.sample(pairs, min(PAIRS_MAX, len(pairs))))
    for first, second in tried:
        crash_twice(folder, name, first, second)
    assert len(tried) > 1
    record_property("crash_pairs", len(tried))
    print(f"{name}: {len(tried)} of {len(pairs)} pairs of crash points")  # noqa: T201 - shown by -rP


def crash_twice(folder: Path, name: str, first: int, second: int) -> None:
    rig = prepared(folder, name)
    rig.die_after(first)
    assert rig.dies()
    rig.stage.kernel.faults.revive()
    rig.die_after(second)
    assert rig.restart() or rig.dies()
    rig.recovers()

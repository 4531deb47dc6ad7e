"""Garbage is looked for seldom while a reconciler is at work, and as before afterwards."""

from __future__ import annotations

import gc
import weakref

from reconciler.garbage import seldom_collected


class Cycle:
    """Something that only the collector can take away."""

    def __init__(self) -> None:
        self.me = self


def test_what_is_there_at_the_start_is_left_out() -> None:
    frozen, thresholds = gc.get_freeze_count(), gc.get_threshold()

    with seldom_collected():
        assert gc.get_freeze_count() > frozen
        assert gc.get_threshold() > thresholds

    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, thresholds)


def test_a_cycle_of_new_objects_is_still_found() -> None:
    with seldom_collected():
        made = Cycle()
        gone = weakref.ref(made)
        del made
        gc.collect()

        assert gone() is None

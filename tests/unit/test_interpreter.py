"""Python does its own work seldom while a reconciler is at work, and as before afterwards."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator

import pytest

from reconciler import interpreter


@pytest.fixture(autouse=True)
def _as_python_begins() -> Iterator[None]:
    thresholds, switch_s = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(700, 10, 10)
    sys.setswitchinterval(0.005)
    yield
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(switch_s)


class Cycle:
    """Something that only the collector can take away."""

    def __init__(self) -> None:
        self.me = self


def test_what_is_there_at_the_start_is_left_out() -> None:
    frozen, thresholds = gc.get_freeze_count(), gc.get_threshold()

    with interpreter.at_work():
        assert gc.get_freeze_count() > frozen
        assert gc.get_threshold() > thresholds

    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, thresholds)


def test_a_cycle_of_new_objects_is_still_found() -> None:
    with interpreter.at_work():
        made = Cycle()
        gone = weakref.ref(made)
        del made
        gc.collect()

        assert gone() is None


def test_a_thread_that_computes_is_interrupted_less_often() -> None:
    before_s = sys.getswitchinterval()

    with interpreter.at_work():
        assert sys.getswitchinterval() > before_s

    assert sys.getswitchinterval() == before_s

"""What was done is looked at a little later, once, and when nobody waits for it; but it is."""

from __future__ import annotations

import pytest

from reconciler.clock import FakeClock
from reconciler.latelooks import PASSES_MAX, PATIENCE_S, LateLooks, are_for_a_survey
from reconciler.onward import LOOK_AFTER_S


def looks() -> tuple[LateLooks, FakeClock]:
    clock = FakeClock()
    return LateLooks(clock), clock


def test_a_disk_is_looked_at_once_when_its_time_has_come() -> None:
    late, clock = looks()
    late.add("sb-1")
    clock.advance_s(LOOK_AFTER_S / 2)
    late.add("sb-1")
    late.add("sb-2")
    assert late.take(others_wait=False) == []
    clock.advance_s(LOOK_AFTER_S / 2)
    assert late.take(others_wait=False) == ["sb-1"]
    clock.advance_s(LOOK_AFTER_S)
    assert late.take(others_wait=False) == ["sb-2"]
    assert len(late) == 0


def test_a_look_waits_for_disks_that_want_something_done_but_not_for_ever() -> None:
    late, clock = looks()
    late.add("sb-1")
    clock.advance_s(LOOK_AFTER_S)
    assert late.take(others_wait=True) == []
    clock.advance_s(PATIENCE_S)
    late.add("sb-2")
    assert late.take(others_wait=True) == ["sb-1"]
    assert len(late) == 1


@pytest.mark.parametrize(
    ("due", "known", "expected"),
    [(0, 0, False), (PASSES_MAX, 8, False), (8, 8, True), (99, 1000, False), (200, 1000, True)],
)
def test_many_are_looked_at_by_a_survey(due: int, known: int, *, expected: bool) -> None:
    assert are_for_a_survey(due, known) is expected

"""What a transition costs in counts: within the bounds, and a bound that is passed is a failure."""

from __future__ import annotations

import subprocess
import sys

import attrs
import pytest

from reconciler.bench import counts
from reconciler.bench.counts import BOUNDS, Counts
from reconciler.reconcile import Reconciler


def test_no_transition_costs_more_than_its_bound() -> None:
    """An order of magnitude more calls, commits or bytes is a regression on every machine."""
    found = counts.count()
    assert counts.regressions(found) == []
    assert found.keys() == BOUNDS.keys()


def test_what_is_counted_is_really_counted() -> None:
    found = counts.count()
    moved = {name: each for name, each in found.items() if name != "resync"}
    assert all(each.questions and each.changes and each.log_bytes for each in moved.values())
    one_each = dict.fromkeys(moved, (2, 2))
    two_in_one_pass = {"create": (3, 4)}
    assert {n: (c.commits, c.events) for n, c in moved.items()} == one_each | two_in_one_pass


def test_a_look_at_a_disk_that_is_as_it_should_be_writes_nothing() -> None:
    found = counts.count()["resync"]
    assert attrs.evolve(found, questions=0) == Counts(
        questions=0, changes=0, commits=0, events=0, log_bytes=0, processes=0
    )


def test_the_same_transitions_cost_the_same() -> None:
    assert counts.count() == counts.count()


@pytest.mark.parametrize("field", attrs.fields_dict(Counts))
def test_each_count_above_its_bound_is_named(field: str) -> None:
    too_much = {name: attrs.evolve(bound, **{field: 10**9}) for name, bound in BOUNDS.items()}
    told = counts.regressions(too_much)
    assert len(told) == len(BOUNDS)
    assert f"pause: 1000000000 {field}, at most {getattr(BOUNDS['pause'], field)}" in told


def test_a_program_that_is_started_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Reconciler.reconcile

    def with_a_program(self: Reconciler, name: str) -> object:
        subprocess.run([sys.executable, "-c", ""], check=True)
        return plain(self, name)

    monkeypatch.setattr(Reconciler, "reconcile", with_a_program)
    found = counts.count()
    assert all(each.processes for each in found.values())
    assert len([told for told in counts.regressions(found) if "processes" in told]) == len(BOUNDS)

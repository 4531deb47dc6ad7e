"""The table: each allowed pair leads where it says, every other one is refused by name."""

from __future__ import annotations

import itertools

import pytest

from statemachine.errors import IllegalTransition
from statemachine.machine import (
    DRIFT_TRIGGERS,
    EDGES,
    MEETS,
    Desired,
    State,
    Trigger,
    fire,
    is_met,
    next_trigger,
    path,
    sources,
)

# Written out once more, by hand: the contract and not the code.
ALLOWED = {
    ("absent", "attach"): "attached",
    ("attached", "snapshot"): "snapshotted",
    ("snapshotted", "pause"): "paused",
    ("restored", "pause"): "paused",
    ("paused", "restore"): "restored",
    ("paused", "rewind"): "paused",
    ("absent", "remove"): "removed",
    ("attached", "remove"): "removed",
    ("snapshotted", "remove"): "removed",
    ("paused", "remove"): "removed",
    ("restored", "remove"): "removed",
    ("attached", "lose"): "absent",
    ("snapshotted", "lose"): "paused",
    ("restored", "lose"): "paused",
    ("snapshotted", "vanish"): "absent",
    ("restored", "vanish"): "absent",
    ("paused", "vanish"): "absent",
    ("paused", "find"): "restored",
    ("attached", "find"): "snapshotted",
    ("absent", "find"): "paused",
    ("attached", "repair"): "attached",
    ("snapshotted", "repair"): "snapshotted",
    ("paused", "repair"): "paused",
    ("restored", "repair"): "restored",
}
PAIRS = list(itertools.product(State, Trigger))
PATHS: dict[str, dict[str, str | None]] = {
    "absent": {"attached": "attach", "live": "attach snapshot",
               "paused": "attach snapshot pause", "removed": "remove"},
    "attached": {"attached": "", "live": "snapshot", "paused": "snapshot pause",
                 "removed": "remove"},
    "snapshotted": {"attached": None, "live": "", "paused": "pause", "removed": "remove"},
    "paused": {"attached": None, "live": "restore", "paused": "", "removed": "remove"},
    "restored": {"attached": None, "live": "", "paused": "pause", "removed": "remove"},
    "removed": {"attached": None, "live": None, "paused": None, "removed": ""},
}  # fmt: skip


@pytest.mark.parametrize(("state", "trigger"), PAIRS)
def test_each_pair_leads_where_the_table_says_or_is_refused(state: State, trigger: Trigger) -> None:
    target = ALLOWED.get((state.value, trigger.value))
    if target is not None:
        assert State(target) is fire("sb-1", state, trigger)
        return
    with pytest.raises(IllegalTransition) as caught:
        fire("sb-1", state, trigger)
    error = caught.value
    assert (state, trigger, 4) == (error.state, error.trigger, error.exit_code)
    assert error.message.startswith(f"sb-1: cannot {trigger} a disk that is {state}; ")
    for source in sources(trigger):
        assert source in error.message


def test_nothing_else_is_in_the_table() -> None:
    assert {(e.source.value, e.trigger.value): e.target.value for e in EDGES} == ALLOWED


@pytest.mark.parametrize(("state", "desired"), list(itertools.product(State, Desired)))
def test_the_shortest_path(state: State, desired: Desired) -> None:
    expected = PATHS[state.value][desired.value]
    way = path(state, desired)
    assert expected == (None if way is None else " ".join(edge.trigger for edge in way))
    first = expected.split()[0] if expected else None
    assert first == next_trigger(state, desired)


def test_no_path_uses_a_trigger_that_only_an_observation_pulls() -> None:
    ways = [path(state, desired) or () for state, desired in itertools.product(State, Desired)]
    assert set() == {edge.trigger for way in ways for edge in way} & DRIFT_TRIGGERS


@pytest.mark.parametrize(("state", "desired"), list(itertools.product(State, Desired)))
def test_live_is_met_by_both_lives(state: State, desired: Desired) -> None:
    assert (state in MEETS[desired]) == is_met(state, desired)
    if desired is Desired.LIVE:
        assert (state in (State.SNAPSHOTTED, State.RESTORED)) == is_met(state, desired)


def test_deciding_twice_is_independent() -> None:
    # `transitions` 0.9.3 skips a second equal model: two decisions must not meet there.
    first = fire("sb-1", State.ABSENT, Trigger.ATTACH)
    second = fire("sb-1", State.ABSENT, Trigger.ATTACH)
    assert (first, second) == (State.ATTACHED, State.ATTACHED)

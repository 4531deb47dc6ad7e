"""Backoff: the ceiling doubles up to the cap, and the delay is anywhere below it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.backoff import ATTEMPTS_MAX_MAX, CAP_S_MAX, FIRST_S_MIN, Backoff

JUST_BELOW_ONE = 1 - 2**-53


def test_the_ceiling_doubles_until_the_cap() -> None:
    backoff = Backoff(first_s=0.5, cap_s=3.0)
    assert [backoff.ceiling_s(attempt) for attempt in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_the_delay_is_the_drawn_part_of_the_ceiling() -> None:
    backoff = Backoff(first_s=0.2, cap_s=60.0)
    assert backoff.delay_s(1, lambda: 0.0) == 0.0
    assert backoff.delay_s(1, lambda: 0.5) == 0.1
    assert backoff.delay_s(1, lambda: JUST_BELOW_ONE) <= 0.2


def test_the_same_seed_gives_the_same_delays() -> None:
    def draw() -> list[float]:
        source = random.Random(7).random  # noqa: S311 - jitter, not a secret
        return [Backoff().delay_s(attempt, source) for attempt in range(1, 10)]

    assert draw() == draw()


@given(
    first_s=st.floats(FIRST_S_MIN, 10),
    cap_s=st.floats(10, CAP_S_MAX),
    attempt=st.integers(1, 10**12),
    fraction=st.floats(0, 1, exclude_max=True),
)
def test_no_delay_is_negative_or_above_the_cap(
    first_s: float, cap_s: float, attempt: int, fraction: float
) -> None:
    backoff = Backoff(first_s=first_s, cap_s=cap_s)
    assert 0 <= backoff.delay_s(attempt, lambda: fraction) <= cap_s


@given(attempt=st.integers(1, 10_000))
def test_the_ceiling_never_falls(attempt: int) -> None:
    assert Backoff().ceiling_s(attempt) <= Backoff().ceiling_s(attempt + 1)


def test_attempt_ten_thousand_does_not_overflow() -> None:
    backoff = Backoff(first_s=FIRST_S_MIN, cap_s=CAP_S_MAX)
    assert backoff.ceiling_s(10_000) == CAP_S_MAX


def test_attempts_end() -> None:
    backoff = Backoff(attempts_max=3)
    assert [backoff.exhausted(attempts) for attempts in range(1, 5)] == [False, False, True, True]


@pytest.mark.parametrize(
    "bad",
    [
        {"first_s": 0.0},
        {"first_s": -1.0},
        {"first_s": float("nan")},
        {"cap_s": CAP_S_MAX * 2},
        {"cap_s": float("inf")},
        {"cap_s": float("nan")},
        {"first_s": 61.0, "cap_s": 60.0},
    ],
)
def test_a_backoff_out_of_bounds_cannot_be_made(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"first_s|cap_s"):
        Backoff(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("attempts_max", [0, -1, ATTEMPTS_MAX_MAX + 1])
def test_a_bound_on_attempts_is_itself_bounded(attempts_max: int) -> None:
    with pytest.raises(ValueError, match="attempts_max"):
        Backoff(attempts_max=attempts_max)


@pytest.mark.parametrize("attempt", [0, -1])
def test_attempts_are_counted_from_one(attempt: int) -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        Backoff().delay_s(attempt, lambda: 0.5)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_source_of_randomness_that_leaves_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="random"):
        Backoff().delay_s(1, lambda: fraction)

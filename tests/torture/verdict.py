"""Saying what is wrong where no test runner explains an `assert`: in a guest, in a program.

May be imported by the torture tests.
"""

from __future__ import annotations

from collections.abc import Sequence


def assert_none(wrong: Sequence[str], what: str) -> None:
    """Raise AssertionError with everything that is wrong; `what` is what should be right."""
    if wrong:
        raise AssertionError(f"{what}: {'; '.join(wrong)}")


def assert_same(one: object, other: object, what: str) -> None:
    """Raise AssertionError with both if they differ; `what` is what should be the same."""
    if one != other:
        raise AssertionError(f"{what}: {one} is not {other}")

"""Hints: equal ones are one, and their kinds are a closed list."""

from __future__ import annotations

import pytest

from reconciler.watch.hint import NAME_LENGTH_MAX, Hint, HintKind


def test_equal_hints_are_one() -> None:
    first = Hint(source="inotify", kind=HintKind.MAPPER, name="sb-1")
    second = Hint(source="inotify", kind=HintKind("mapper"), name="sb-1")
    assert len({first, second}) == 1


def test_a_kind_is_one_of_a_closed_list() -> None:
    assert sorted(HintKind) == ["all", "device", "disk", "link", "log", "mapper", "spec"]
    with pytest.raises(ValueError, match="block"):
        HintKind("block")


def test_a_name_is_no_longer_than_a_file_name() -> None:
    with pytest.raises(ValueError, match="name"):
        Hint(source="inotify", kind=HintKind.SPEC, name="x" * (NAME_LENGTH_MAX + 1))

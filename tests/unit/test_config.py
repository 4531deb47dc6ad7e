"""Where a root is, and the bounds of settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.config import Settings
from reconciler.root import Root
from statemachine.errors import UsageError


@pytest.mark.parametrize(
    ("environment", "uid", "expected"),
    [
        ({"BYRE_ROOT": "/x"}, 0, "/x"),
        ({"BYRE_ROOT": "/x", "HOME": "/h/a"}, 1000, "/x"),
        ({}, 0, "/var/lib/byre"),
        ({"BYRE_ROOT": ""}, 0, "/var/lib/byre"),
        ({"HOME": "/h/a"}, 1000, "/h/a/.local/state/byre"),
        ({"HOME": "/h/a", "XDG_STATE_HOME": "/s"}, 1000, "/s/byre"),
    ],
)
def test_the_root_without_a_word_about_it(
    environment: dict[str, str], uid: int, expected: str
) -> None:
    assert Root.from_environment(environment, uid=uid).path == Path(expected)


def test_each_generation_has_a_file_of_its_own() -> None:
    root = Root("/r")
    assert str(root.cow("abc", 2, "cow")) == "/r/cow/abc-2.cow"
    assert root.cow("abc", 2, "cow") != root.cow("abc", 3, "cow")


@pytest.mark.parametrize(
    ("field", "value"),
    [("workers", 0), ("workers", 65), ("resync_s", 0.5), ("resync_s", float("nan")),
     ("attempts_max", 0), ("backoff_first_s", 0), ("backoff_cap_s", 86_401),
     ("blocked_poll_s", 0), ("device_prefix", ""), ("device_prefix", "a/b"),
     ("device_prefix", "-a"), ("device_prefix", "a" * 33), ("device_prefix", "a\n")],
)  # fmt: skip
def test_a_setting_out_of_its_bounds_is_a_usage_error(field: str, value: float | str) -> None:
    with pytest.raises(UsageError, match=field):
        Settings(**{field: value})  # type: ignore[arg-type]

"""How long a disk is wanted, as a spec says it: read, kept in the log, and what is wrong named."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from reconciler import specs
from statemachine.errors import SpecError
from statemachine.lifetime import (
    DURATION_S_MAX,
    Lifetime,
    OnExpiry,
    duration_s,
    duration_text,
    end_of,
    moment,
    moment_text,
)
from statemachine.spec import DiskSpec
from statemachine.specreader import parse

EIGHT = 1_795_204_800_000_000_000
"""2026-11-20T20:00:00Z."""


def spec_of(**fields: object) -> DiskSpec:
    table = {"name": "sb-1", "base": "/b", **fields}
    [spec] = parse({"disk": [table]}, source="a.toml", folder=Path("/"))
    return spec


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("90s", 90),
        ("2h", 7200),
        ("1d12h", 129_600),
        ("1.5h", 5400),
        (90, 90),
        (1.5, 1.5),
        ("1w", 604_800),
    ],
)
def test_a_duration_is_read(found: object, expected: float) -> None:
    assert expected == duration_s(found)
    assert expected == duration_s(duration_text(expected))


@pytest.mark.parametrize(
    "found",
    ["", "2", "h", "2 h", "-1s", "0s", "1y", "2H", 0, -1, True, None, [], float("nan"), "9999999w",
     float("inf"), "٣s", "1..5h", DURATION_S_MAX + 1],
)  # fmt: skip
def test_what_is_no_duration_is_refused(found: object) -> None:
    with pytest.raises(SpecError, match=r"field 'ttl': found .*; allowed: seconds, or text"):
        spec_of(ttl=found)


def test_a_long_duration_loses_nothing() -> None:
    assert duration_text(315_359_999.999) == "315359999.999s"
    assert duration_s("315359999.999s") == 315_359_999.999


@pytest.mark.parametrize(
    "found",
    [
        "2026-11-20T20:00:00Z",
        "2026-11-20T22:00:00+02:00",
        datetime.datetime(2026, 11, 20, 20, tzinfo=datetime.UTC),
    ],
)
def test_a_time_is_kept_in_utc(found: object) -> None:
    assert moment(found) == EIGHT
    assert spec_of(expires_at=found).to_data()["expires_at"] == "2026-11-20T20:00:00Z"


@pytest.mark.parametrize(
    "found",
    ["2026-11-20T20:00:00", "2026-11-20", "tomorrow", 1, None, datetime.date(2026, 11, 20),
     datetime.datetime(2026, 11, 20),  # noqa: DTZ001 - the very mistake
     "1969-12-31T23:59:59Z", "2200-01-01T00:00:00Z",
     "9999-12-31T23:59:59-23:00"],
)  # fmt: skip
def test_a_time_without_an_offset_or_far_off_is_refused(found: object) -> None:
    with pytest.raises(SpecError, match=r"field 'expires_at': found .*; allowed: a time with its"):
        spec_of(expires_at=found)


def test_two_ends_and_an_unknown_end_are_refused() -> None:
    with pytest.raises(SpecError, match="'ttl': found '2h'; allowed: nothing beside 'expires_at'"):
        spec_of(ttl="2h", expires_at="2026-11-20T20:00:00Z")
    with pytest.raises(SpecError, match="'on_expiry': found 'delete'; allowed: pause, remove"):
        spec_of(on_expiry="delete")


def test_the_log_has_what_was_said_and_nothing_of_what_was_not() -> None:
    assert set(spec_of().to_data()) == {"name", "base", "state", "driver"}
    said = spec_of(expires_at="2026-11-20T20:00:00.5Z", on_expiry="remove", idle_pause="15m")
    assert (
        said.to_data().items()
        >= {
            "expires_at": "2026-11-20T20:00:00.500000Z",
            "on_expiry": "remove",
            "idle_pause": "900s",
        }.items()
    )
    assert said == DiskSpec.from_data(said.to_data())
    assert Lifetime(ttl_s=1.5, on_expiry=OnExpiry.PAUSE) == spec_of(ttl=1.5).lifetime


def test_an_end_is_a_time_or_counted_from_the_declaration() -> None:
    assert end_of({"expires_at": moment_text(EIGHT)}, 5) == EIGHT
    assert end_of({"ttl": "2s"}, 5) == 2_000_000_005
    assert end_of({}, 5) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", "[[disk]]\nname='a'\nbase='/b'\nexpires_at=2026-11-20T22:00:00+02:00\n"),
        ("a.yaml", "disk:\n- {name: a, base: /b, expires_at: '2026-11-20T22:00:00+02:00'}\n"),
        ("a.yaml", "disk:\n- {name: a, base: /b, expires_at: 2026-11-20T22:00:00+02:00}\n"),
        ("a.yaml", "disk:\n- {name: a, base: /b, expires_at: 2026-11-20T20:00:00Z}\n"),
        (
            "a.json",
            json.dumps(
                {"disk": [{"name": "a", "base": "/b", "expires_at": "2026-11-20T20:00:00Z"}]}
            ),
        ),
    ],
)
def test_each_format_gives_the_same_time(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    [found] = specs.read(str(folder / name))
    assert found.spec.lifetime.expires_at == EIGHT

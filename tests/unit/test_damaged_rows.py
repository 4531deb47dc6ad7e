"""Rows of the log that no byre wrote: refused as damaged, or not understood, and never a crash."""

from __future__ import annotations

import attrs
import pytest

from statemachine import payloads, projection
from statemachine.diskrows import read_record
from statemachine.errors import LogDamaged
from statemachine.events import GENESIS, Event, is_known, upcast

DEEP = '{"a":' + "[" * 100_000
EVENT = Event(
    seq=1,
    disk="sb-1",
    generation=1,
    version=1,
    type="disk.declared",
    at=1,
    actor="",
    reason="",
    correlation_id="",
    boot_id="",
    data_text="{}",
    prev_hash=GENESIS,
    hash="",
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[1]", "no JSON object"),
        (DEEP, "event 1: its data is nested too deeply"),
        ('{"v":"1"}', "a schema version is a whole number, not '1'"),
        ('{"v":[]}', "a whole number"),
        ('{"v":null}', "a whole number"),
        ('{"v":true}', "a whole number"),
        ('{"v":1e999}', "a whole number, not inf"),
        ('{"v":1' + "0" * 5000 + "}", "digits"),
    ],
    ids=["empty", "list", "deep", "text", "version-list", "null", "true", "infinite", "long"],
)
def test_data_that_is_no_payload(text: str, why: str) -> None:
    event = attrs.evolve(EVENT, data_text=text)
    assert not is_known(event)
    for read in (payloads.read, lambda each: projection.apply(None, each)):
        with pytest.raises(ValueError, match=why):
            read(event)


def test_a_list_where_a_table_should_be() -> None:
    text = (
        '{"id":"x","spec":[],"device_name":"x","base":{"device":1,"inode":1,"size":1,"mtime_ns":1}}'
    )
    with pytest.raises(ValueError, match="DiskDeclared"):
        payloads.read(attrs.evolve(EVENT, data_text=text))


def test_a_newer_version_is_kept_as_it_is() -> None:
    assert upcast("disk.declared", {"v": 99, "new": 1}) == {"v": 99, "new": 1}


@pytest.mark.parametrize("text", ["", "1", "{}", DEEP])
def test_a_record_that_is_none(text: str) -> None:
    with pytest.raises(LogDamaged, match="a record of the table `disks` cannot be read"):
        read_record(text)

"""An event says what it changes, and gives the same record as one that says everything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cli import wording
from statemachine import payloads, projection
from statemachine.events import Event
from statemachine.machine import Trigger
from statemachine.record import Record
from statemachine.units import Bytes
from tests.unit.builders import Stage
from tests.unit.events_made import IDENTITY

SPEC = {"name": "sb-1", "base": "/srv/base.ext4", "state": "live", "driver": "auto"}


def event(version: int, event_type: str, data: dict[str, object], generation: int = 1) -> Event:
    text = json.dumps(data)
    return Event(
        version,
        "sb-1",
        generation,
        version,
        event_type,
        8,
        "tester",
        "",
        "",
        "boot-2",
        text,
        "",
        "",
    )


def whole(spec: dict[str, str], **more: object) -> dict[str, object]:
    base = payloads.to_data(IDENTITY)
    return {"id": "0" * 32, "spec": spec, "device_name": "byre-sb-1", "base": base, **more}


def record(**changed: object) -> Record:
    made = projection.apply(None, event(1, "disk.declared", whole(SPEC, v=2)))
    assert made is not None
    return attrs.evolve(made, **changed)  # type: ignore[arg-type]


def completed(before: Record, data: Mapping[str, object]) -> Record:
    moved = {"trigger": "restore", "source": "paused", "target": "restored", **data}
    made = projection.apply(before, event(2, "transition.completed", moved))
    assert made is not None
    return made


# --- declarations ---------------------------------------------------------------------------------

fields = st.sampled_from(["name", "base", "driver", "link", "cow_size"])
specs = st.dictionaries(fields, st.sampled_from(["a", "b"])).flatmap(
    lambda rest: st.sampled_from(["live", "paused"]).map(lambda state: {**rest, "state": state})
)


@given(before=specs, wanted=specs)
def test_what_changed_of_a_spec_gives_the_whole_spec(
    before: dict[str, str], wanted: dict[str, str]
) -> None:
    told = payloads.DiskDeclared(**payloads.again(before, wanted))
    assert wanted == told.spec_after(before)
    assert told.spec["state"] == wanted["state"]
    unchanged = [name for name in told.spec if before.get(name) == told.spec[name]]
    assert unchanged in ([], ["state"])


def test_a_later_declaration_of_version_1_said_everything() -> None:
    shorter = {name: value for name, value in SPEC.items() if name != "driver"}
    known = record(spec={**SPEC, "link": "/srv/link"})
    again = projection.apply(known, event(2, "disk.declared", whole(shorter, v=1)))
    assert again is not None
    assert again.spec == shorter


def test_a_generation_that_begins_with_a_change_is_damage() -> None:
    change = {"spec": {"state": "live"}, "v": 2}
    with pytest.raises(ValueError, match="without id or base"):
        projection.apply(None, event(1, "disk.declared", change))
    with pytest.raises(ValueError, match="without id or base"):
        projection.apply(record(), event(2, "disk.declared", change, generation=2))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (whole(SPEC), "live on /srv/base.ext4"),
        ({"spec": {"state": "paused"}}, "paused"),
        (
            {"spec": {"state": "live", "link": "/a"}, "without": ["cow_max"]},
            "live, link /a, no cow_max",
        ),
    ],
)
def test_history_tells_a_person_what_is_wanted(data: dict[str, object], told: str) -> None:
    assert told == wording.what(event(2, "disk.declared", data))


# --- outcomes -------------------------------------------------------------------------------------


def test_an_outcome_that_says_nothing_of_the_cow_leaves_it_as_it_was_seen_now() -> None:
    known = record(cow=IDENTITY, cow_boot_id="boot-1")
    after = completed(known, {"v": 2})
    assert (after.cow, after.cow_boot_id) == (IDENTITY, "boot-2")


def test_an_outcome_may_tell_of_a_write_alone() -> None:
    after = completed(record(cow=IDENTITY), {"cow_mtime_ns": 99, "v": 2})
    assert after.cow == attrs.evolve(IDENTITY, mtime_ns=99)


def test_another_file_in_the_place_of_the_cow_is_not_taken_for_it() -> None:
    known = record(cow=IDENTITY, cow_boot_id="boot-1")
    for data in ({"cow_is_other": True, "v": 2}, {"v": 1}):
        after = completed(known, data)
        assert (after.cow, after.cow_boot_id) == (IDENTITY, "boot-1")


def test_an_outcome_of_version_1_has_the_file_whole() -> None:
    cow = attrs.evolve(IDENTITY, inode=7, size=Bytes(4096))
    after = completed(record(cow=IDENTITY), {"cow": payloads.to_data(cow), "v": 1})
    assert (after.cow, after.cow_boot_id) == (cow, "boot-2")


def test_a_link_leads_to_the_device_unless_it_says_otherwise() -> None:
    live = {"device": "/dev/mapper/x", "link": "/a", "v": 2}
    assert completed(record(), live).link_target == "/dev/mapper/x"
    assert completed(record(), {**live, "link_target": "/dev/dm-4"}).link_target == "/dev/dm-4"
    assert completed(record(), {"device": "/dev/mapper/x", "v": 2}).link_target == ""


# --- as the reconciler writes them ----------------------------------------------------------------


def test_a_disk_that_is_paused_and_restored_is_told_of_in_few_words(folder: Path) -> None:
    stage = Stage(folder)
    stage.live(link=Path("/srv/rootfs.link"))
    stage.command(Trigger.PAUSE)
    known = stage.command(Trigger.RESTORE)
    first, *later = [each.data for each in stage.events() if each.type == "disk.declared"]
    assert first["spec"]["name"] == "sb-1"
    assert [each["spec"] for each in later] == [{"state": "paused"}, {"state": "live"}]
    assert [{"id", "base", "device_name"} & set(each) for each in later] == [set(), set()]
    ends = [each.data for each in stage.events() if each.type == "transition.completed"]
    triggers = ["attach", "snapshot", "pause", "restore"]
    assert [end["trigger"] for end in ends] == triggers
    assert [end["trigger"] for end in ends if "cow" in end] == ["attach"]
    assert [end["trigger"] for end in ends if "link_target" in end] == []
    assert known.link_target == known.device
    assert known.cow == stage.kernel.identify(Path(known.cow_path))
    stage.check_log()
    stage.close()

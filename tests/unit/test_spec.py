"""The check of a whole set of specs: every fault is named, at once, with what is allowed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine import specreader
from statemachine.errors import SpecError
from statemachine.machine import Desired
from statemachine.spec import DiskSpec, DriverChoice, OnBusy
from statemachine.specfault import shown
from statemachine.specreader import DISKS_MAX, check_unique, parse
from statemachine.units import Bytes

FOLDER = Path("/etc/byre")
GOOD: dict[str, object] = {"name": "sb-1", "base": "/srv/base.ext4"}
FIELDS = [*specreader.FIELDS, "extra"]


def faults_of(*disks: object, **top: object) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        parse({"disk": list(disks), **top}, source="a.toml", folder=FOLDER)
    assert caught.value.exit_code == 2
    return caught.value.faults


def test_a_whole_spec_is_read() -> None:
    table = {**GOOD, "state": "paused", "link": "/srv/vm/rootfs.link", "driver": "clone"}
    table |= {"cow_size": "1536KiB", "cow_max": 2**21 - 1, "on_busy": "fail", "busy_timeout_s": 30}
    expected = DiskSpec(
        name=parse({"disk": [GOOD]}, source="", folder=FOLDER)[0].name,
        base=Path("/srv/base.ext4"),
        state=Desired.PAUSED,
        link=Path("/srv/vm/rootfs.link"),
        driver=DriverChoice.CLONE,
        cow_size=Bytes(3 * 2**19),
        cow_max=Bytes(2**21),
        on_busy=OnBusy.FAIL,
        busy_timeout_s=30.0,
    )
    assert expected == DiskSpec.from_data(expected.to_data())
    assert (expected,) == parse({"disk": [table]}, source="a.toml", folder=FOLDER)


def test_what_is_not_said_has_its_default_and_paths_are_beside_the_file() -> None:
    [spec] = parse({"disk": [{"name": "a", "base": "b.img"}]}, source="", folder=FOLDER)
    assert (spec.state, spec.link, spec.driver) == (Desired.LIVE, None, DriverChoice.AUTO)
    assert (spec.cow_size, spec.cow_max) == (None, None)
    assert (spec.on_busy, spec.busy_timeout_s) == (OnBusy.WAIT, 60.0)
    assert Path("/etc/byre/b.img") == spec.base


@pytest.mark.parametrize("document", [None, {}, {"disk": []}])
def test_nothing_is_no_fault(document: object) -> None:
    assert parse(document, source="", folder=FOLDER) == ()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sise": "10G"}, "sise"),
        ({"Name": "x"}, "Name"),
        ({"prison": {"root": "/srv"}}, "prison"),
        ({1: 2}, "1"),
        ({"name": "a/b"}, "name"),
        ({"name": ".."}, "name"),
        ({"name": "a..b"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a" * 64}, "name"),
        ({"name": "SB-1"}, "name"),
        ({"name": ""}, "name"),
        ({"name": 7}, "name"),
        ({"name": None}, "name"),
        ({"base": ""}, "base"),
        ({"base": 7}, "base"),
        ({"base": ["/a"]}, "base"),
        ({"base": None}, "base"),
        ({"base": "/a\nb"}, "base"),
        ({"base": "/a\0b"}, "base"),
        ({"base": "/\udcff"}, "base"),
        ({"base": "/" + "a" * 4095}, "base"),
        ({"link": "/srv/../etc/passwd"}, "link"),
        ({"link": ".."}, "link"),
        ({"link": ""}, "link"),
        ({"link": None}, "link"),
        ({"link": 1.5}, "link"),
        ({"link": "/a\tb"}, "link"),
        ({"state": "snapshotted"}, "state"),
        ({"state": "Live"}, "state"),
        ({"state": True}, "state"),
        ({"state": None}, "state"),
        ({"state": ["live"]}, "state"),
        ({"driver": "lvm"}, "driver"),
        ({"driver": {}}, "driver"),
        ({"cow_size": 2**20 - 1}, "cow_size"),
        ({"cow_size": "1023KiB"}, "cow_size"),
        ({"cow_size": -(2**20)}, "cow_size"),
        ({"cow_size": 2**70}, "cow_size"),
        ({"cow_size": 2.0**20}, "cow_size"),
        ({"cow_size": True}, "cow_size"),
        ({"cow_size": "much"}, "cow_size"),
        ({"cow_size": None}, "cow_size"),
        ({"cow_max": []}, "cow_max"),
        ({"cow_size": "2MiB", "cow_max": "1MiB"}, "cow_max"),
        ({"chunk_size": 2048}, "chunk_size"),
        ({"chunk_size": "12KiB"}, "chunk_size"),
        ({"chunk_size": "1MiB"}, "chunk_size"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"chunk_size": True}, "chunk_size"),
        ({"chunk_size": None}, "chunk_size"),
        ({"chunk_size": "8KiB", "driver": "clone"}, "chunk_size"),
        ({"chunk_size": "128KiB", "cow_size": "1MiB"}, "cow_size"),
        ({"direct_io": "yes"}, "direct_io"),
        ({"direct_io": 1}, "direct_io"),
        ({"direct_io": None}, "direct_io"),
        ({"on_busy": "force"}, "on_busy"),
        ({"on_busy": None}, "on_busy"),
        ({"busy_timeout_s": -1}, "busy_timeout_s"),
        ({"busy_timeout_s": 86_401}, "busy_timeout_s"),
        ({"busy_timeout_s": float("nan")}, "busy_timeout_s"),
        ({"busy_timeout_s": float("inf")}, "busy_timeout_s"),
        ({"busy_timeout_s": True}, "busy_timeout_s"),
        ({"busy_timeout_s": "30"}, "busy_timeout_s"),
        ({"busy_timeout_s": None}, "busy_timeout_s"),
    ],
)
def test_a_field_that_is_not_acceptable_is_named(change: dict[object, object], field: str) -> None:
    [fault] = faults_of(dict(GOOD) | change)
    assert fault.startswith("a.toml: disk ")
    assert f"field {field!r}: found " in fault
    assert "; allowed: " in fault
    assert len(fault.splitlines()) == 1


def test_what_must_be_there_is_named_when_it_is_not() -> None:
    faults = faults_of({})
    assert [
        "'name': found nothing" in faults[0],
        "'base': found nothing" in faults[1],
    ] == [True, True]


def test_all_faults_of_all_disks_are_named_at_once() -> None:
    faults = faults_of(
        {"name": "A", "base": "", "state": "on", "extra": 1},
        {"name": "ok", "base": "/b", "link": "a/../b"},
        "no table",
        disks=[],
    )
    fields = ["'disks'", "'extra'", "'name'", "'base'", "'state'", "'link'", "disk number 3"]
    assert [field for field in fields if not any(field in fault for fault in faults)] == []
    assert len(faults) == 7


@pytest.mark.parametrize("document", [[], "disk", 1, {"disk": {}}, {"disk": "x"}, {"disk": None}])
def test_a_document_of_another_shape_is_a_fault(document: object) -> None:
    with pytest.raises(SpecError):
        parse(document, source="a.toml", folder=FOLDER)


def test_a_runaway_generator_is_told_early() -> None:
    [fault] = faults_of(*[GOOD] * (DISKS_MAX + 1))
    assert f"at most {DISKS_MAX}" in fault


def test_a_name_twice_is_named_with_both_places() -> None:
    [spec] = parse({"disk": [GOOD]}, source="", folder=FOLDER)
    with pytest.raises(SpecError) as caught:
        check_unique([("a.toml", spec), ("b.toml", spec), ("c.toml", spec)])
    assert ["a.toml" in fault for fault in caught.value.faults] == [True, True]
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["b.toml", "c.toml"]


def test_a_link_for_two_disks_is_named() -> None:
    tables = [{"name": name, "base": "/b", "link": "/l"} for name in ("a", "b")]
    specs = parse({"disk": tables}, source="", folder=FOLDER)
    with pytest.raises(SpecError, match="disk 'a' has it already"):
        check_unique([("x.toml", spec) for spec in specs])


def bomb() -> list[object]:
    """Return what ten lines of YAML anchors give: 2**64 elements, seen as a tree."""
    shared: list[object] = ["lol"]
    for _ in range(64):
        shared = [shared, shared]
    return shared


@pytest.mark.parametrize("field", FIELDS)
def test_a_value_that_is_immense_as_a_tree_is_shown_in_short(field: str) -> None:
    [fault] = faults_of({**GOOD, field: bomb()})
    assert len(fault) < 500


FOUND = {
    "int": 10**5000,
    "str": "x" * 10**6,
    "nested": [[["a" * 1000] * 9] * 9] * 9,
    "bomb": bomb(),
}


@pytest.mark.parametrize("found", FOUND.values(), ids=FOUND.keys())
def test_what_was_found_is_shown_in_short(found: object) -> None:
    assert len(shown(found)) <= 200


def test_a_number_of_too_many_digits_is_a_fault() -> None:
    [fault] = faults_of({**GOOD, "base": 16**5000})
    assert "'base'" in fault


plain: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text() | st.integers(), each),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(FIELDS), plain))
def test_a_table_is_a_spec_or_a_fault_and_nothing_else(table: dict[str, object]) -> None:
    try:
        [spec] = parse({"disk": [table]}, source="a.toml", folder=FOLDER)
    except SpecError:
        return
    assert spec == DiskSpec.from_data(spec.to_data())


@given(plain)
def test_a_document_is_a_set_of_specs_or_a_fault_and_nothing_else(document: object) -> None:
    with contextlib.suppress(SpecError):
        parse(document, source="a.toml", folder=FOLDER)

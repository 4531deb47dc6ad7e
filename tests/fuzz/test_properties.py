"""Any bytes are taken or refused, also near the corpus; and what was written is read back."""

from __future__ import annotations

import json
import os
import types
import typing
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler import specs
from reconciler.store import files
from statemachine import payloads
from statemachine.events import EventType, encode
from statemachine.machine import Desired
from statemachine.spec import DiskSpec, DriverChoice
from tests.fuzz import CORPUS
from tests.fuzz.eventlog import TYPES, event_of
from tests.fuzz.specs import ENDINGS
from tests.fuzz.targets import TARGETS
from tests.unit.cowfiles import SMALL, cow_file, data_chunks

TARGET = pytest.mark.parametrize("target", sorted(TARGETS))
INPUTS = {
    name: [each.read_bytes() for each in sorted((CORPUS / name).iterdir())] for name in TARGETS
}
few = settings(
    # The same examples each time: to look for new ones is the fuzzer's work.
    derandomize=True,
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
fewer = settings(few, max_examples=15)
"""For specs: YAML takes a millisecond for each line."""


@TARGET
@few
@given(data=st.binary(max_size=2048))
def test_any_bytes(target: str, data: bytes) -> None:
    TARGETS[target](data)


@TARGET
@few
@given(data=st.data())
def test_an_input_of_the_corpus_with_a_piece_of_another(target: str, data: st.DataObject) -> None:
    whole, other = (data.draw(st.sampled_from(INPUTS[target])) for _ in range(2))
    start, end = sorted(data.draw(st.integers(0, len(whole))) for _ in range(2))
    first, last = sorted(data.draw(st.integers(0, len(other))) for _ in range(2))
    piece = data.draw(st.one_of(st.just(other[first:last]), st.binary(max_size=16)))
    TARGETS[target](whole[:start] + piece + whole[end:])


# --- the exception store -------------------------------------------------------------------------


@few
@given(
    olds=st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=100),
    holes=st.integers(0, 40),
    valid=st.booleans(),
    data=st.data(),
)
def test_what_is_in_a_store_is_read_and_counted(
    *, olds: list[int], holes: int, valid: bool, data: st.DataObject
) -> None:
    """In any order, as chunks are committed out of order, and with holes, as after a crash."""
    header = attrs.evolve(SMALL, valid=valid)
    news = data.draw(st.permutations(data_chunks(header, len(olds) + holes)))
    report = checked(cow_file(header, list(zip(olds, news, strict=False))))
    assert (report.exceptions, report.header) == (len(olds), header)
    assert report.sound is valid


@few
@given(count=st.integers(1, 70), bit=st.integers(0, 127), data=st.data())
def test_a_flipped_bit_in_an_exception_is_a_finding_or_another_exception(
    count: int, bit: int, data: st.DataObject
) -> None:
    raw = bytearray(cow_file(SMALL, [(n, new) for n, new in enumerate(data_chunks(SMALL, count))]))
    area, index = divmod(data.draw(st.integers(0, count - 1)), SMALL.pairs_per_area)
    at = SMALL.area_chunk(area) * SMALL.chunk_bytes + index * 16
    raw[at + bit // 8] ^= 1 << bit % 8
    report = checked(bytes(raw))
    assert report.exceptions + report.findings_total >= min(count, index + 1)
    assert bit < 64 or not report.sound


def checked(raw: bytes) -> files.Report:
    descriptor = os.memfd_create("byre-test")
    try:
        os.pwrite(descriptor, raw, 0)
        return files.check_open(descriptor)
    finally:
        os.close(descriptor)


# --- specs ---------------------------------------------------------------------------------------

names = st.from_regex(r"[a-z0-9]([._-]?[a-z0-9]){0,20}", fullmatch=True)
letters = st.characters(codec="utf-8", categories=("L", "N", "P", "S"), exclude_characters="/")
parts = st.text(letters, min_size=1, max_size=8).filter(lambda part: part not in (".", ".."))
paths = (
    st.lists(parts, min_size=1)
    .map(lambda each: Path("/", *each))
    .filter(lambda path: len(str(path).encode()) < 1000)
)
disks = st.builds(
    DiskSpec,
    name=names,
    base=paths,
    state=st.sampled_from(Desired),
    link=st.none() | paths,
    driver=st.sampled_from(DriverChoice),
)


@pytest.mark.parametrize("ending", ENDINGS)
@fewer
@given(
    wanted=st.lists(disks, max_size=4, unique_by=(lambda disk: disk.name, lambda disk: disk.link))
)
def test_a_spec_is_read_from_every_format(
    tmp_path_factory: pytest.TempPathFactory, ending: str, wanted: list[DiskSpec]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"spec{ending}"
    path.write_text(document(ending, wanted), encoding="utf-8")
    assert [each.spec for each in specs.read(str(path))] == wanted


def document(ending: str, wanted: list[DiskSpec]) -> str:
    """Write a document; a text in JSON is one in TOML, and a document in JSON is one in YAML."""
    tables = [disk.to_data() for disk in wanted]
    if ending != ".toml":
        return json.dumps({"disk": tables}, ensure_ascii=False)
    lines = [
        "[[disk]]\n" + "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in t.items())
        for t in tables
    ]
    return "\n".join(lines)


# --- events --------------------------------------------------------------------------------------


def values(kind: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401 - any type of a field
    """Return values of the type of a payload's field."""
    if attrs.has(kind):
        hints = typing.get_type_hints(kind)
        names_of = [each.name for each in attrs.fields(kind)]
        return st.builds(kind, **{name: values(hints[name]) for name in names_of})
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*map(values, arguments))
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    known = {
        bool: st.booleans(),
        int: st.integers(0, 2**53),
        str: st.text(st.characters(codec="utf-8"), max_size=8),
        type(None): st.none(),
    }
    return known[kind] if kind in known else st.sampled_from(kind)


@pytest.mark.parametrize("event_type", list(EventType))
@few
@given(data=st.data())
def test_a_payload_is_read_as_it_was_written(event_type: EventType, data: st.DataObject) -> None:
    payload = data.draw(values(payloads.PAYLOADS[event_type]))
    text = encode(event_type, payloads.to_data(payload), actor="fuzz")
    kind = bytes([TYPES.index(event_type.value)])
    assert payloads.read(event_of(kind + text.encode())) == payload
    TARGETS["event"](kind + text.encode())

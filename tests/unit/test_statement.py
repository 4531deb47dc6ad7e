"""Reading what somebody noted of a log: it is a head, or it is refused with what is allowed."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from statemachine.errors import UsageError
from statemachine.statement import Statement, parse

HASH = "9f" * 32
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    seq=st.integers(0, 2**63 - 1),
    root_id=st.text("0123456789abcdef"),
    at=st.sampled_from(["", "2026-01-01T00:00:00.000000001Z"]),
)
def test_what_was_written_is_read_back(seq: int, root_id: str, at: str) -> None:
    statement = Statement(hash=HASH, seq=seq, root_id=root_id, at=at)
    assert parse(json.dumps(statement.to_data()), "it") == statement
    assert parse(f" {statement.line()}\n", "it") == Statement(hash=HASH, seq=seq)


@given(st.text())
@example("[" * 100_000)
@example(f"{2**63}:{HASH}")
@example("1" * 10_000)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no head of a log"):
        parse(text, "it")


@given(
    st.dictionaries(
        st.sampled_from(["kind", "v", "hash", "seq", "root_id", "at", "signature", "public_key"]),
        JSON | st.sampled_from([HASH, "byre log head", 1, -1, 2**63, "a\nb"]),
    )
)
@example({"hash": HASH, "root_id": 7})
@example({"hash": HASH, "root_id": "a\nseq: 7"})
@example({"hash": HASH, "seq": 1.5})
@example({"hash": HASH, "v": 2})
def test_any_object_is_a_head_or_refused(data: dict[str, object]) -> None:
    with contextlib.suppress(UsageError):
        statement = parse(json.dumps(data), "it")
        assert statement.hash == HASH
        assert statement.text().count(b"\n") == 6

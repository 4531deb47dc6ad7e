"""The table of a base that is made longer: written, read back, and nothing else taken for it."""

from __future__ import annotations

import attrs
import pytest

from reconciler.kernel import origintable
from reconciler.kernel.dmstruct import Target
from statemachine.observed import DeviceNumber, OriginTable
from statemachine.units import Sectors

TABLE = OriginTable(base=DeviceNumber(7, 3), base_length=Sectors(8), length=Sectors(21))


def test_it_is_read_as_it_was_written() -> None:
    below, rest = origintable.targets_of(TABLE)
    assert (below.start, below.length, below.kind, below.text) == (
        Sectors(0), Sectors(8), "linear", "7:3 0",
    )  # fmt: skip
    assert (rest.start, rest.length, rest.kind, rest.text) == (Sectors(8), Sectors(13), "zero", "")
    assert origintable.read((below, rest)) == TABLE


@pytest.mark.parametrize("length", [8, 7, 0])
def test_an_origin_is_longer_than_its_base(length: int) -> None:
    with pytest.raises(ValueError, match="is none"):
        origintable.targets_of(attrs.evolve(TABLE, length=Sectors(length)))


def test_any_other_table_is_none() -> None:
    below, rest = origintable.targets_of(TABLE)
    others: list[tuple[Target, ...]] = [
        (),
        (below,),
        (rest, below),
        (below, rest, rest),
        (attrs.evolve(below, text="7:3 8"), rest),
        (attrs.evolve(below, text="loop 0"), rest),
        (below, attrs.evolve(rest, text="x")),
        (below, attrs.evolve(rest, start=Sectors(9))),
    ]
    assert [origintable.read(each) for each in others] == [None] * len(others)

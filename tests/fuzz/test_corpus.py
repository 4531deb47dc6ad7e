"""Every input that is worth keeping is taken by its target, and the corpus stays small."""

from __future__ import annotations

import pytest

from tests.fuzz import CORPUS
from tests.fuzz.targets import TARGETS

FILES_MAX = 200
CORPUS_BYTES_MAX = 300 * 1024
INPUTS = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize(
    "name", [str(path.relative_to(CORPUS)) for path in INPUTS], ids=lambda name: name
)
def test_an_input_of_the_corpus(name: str) -> None:
    TARGETS[name.partition("/")[0]]((CORPUS / name).read_bytes())


def test_every_target_has_a_corpus_and_no_corpus_is_without_a_target() -> None:
    assert {path.parent.name for path in INPUTS} == TARGETS.keys()


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_corpus_is_small(target: str) -> None:
    assert len(list((CORPUS / target).iterdir())) <= FILES_MAX
    assert sum(path.stat().st_size for path in INPUTS) <= CORPUS_BYTES_MAX


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_no_bytes_at_all(target: str) -> None:
    TARGETS[target](b"")

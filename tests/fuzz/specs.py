"""The spec reader against any document: its first byte says in which way it comes."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Final

from reconciler import specs
from statemachine.errors import SpecError
from statemachine.spec import DiskSpec

ENDINGS: Final = (".toml", ".yaml", ".json", ".yml")
FAULT_CHARACTERS_MAX: Final = 8192
"""A fault is read by a person, however large the document is; two paths may be in it."""


def read_specs(data: bytes) -> None:
    """Read a document from a file, or from standard input where its first byte says so."""
    kind, document = data[:1], data[1:]
    try:
        if kind in (b"", b"-"):
            found = specs.read("-", stdin=lambda: document.decode("utf-8"))
        else:
            path = folder() / f"spec{ENDINGS[kind[0] % len(ENDINGS)]}"
            path.write_bytes(document)
            found = specs.read(str(path))
    except SpecError as error:
        can_be_shown(error.faults)
        return
    survives([each.spec for each in found])


def can_be_shown(faults: tuple[str, ...]) -> None:
    """Check that there is something to say, in lines that a person can read."""
    assert faults
    assert all(0 < len(fault) <= FAULT_CHARACTERS_MAX for fault in faults)


def survives(found: list[DiskSpec]) -> None:
    """Check that specs come back from the log's data and from a file with them."""
    data = [spec.to_data() for spec in found]
    assert [DiskSpec.from_data(each) for each in data] == found
    text = json.dumps({"disk": data})
    again = specs.read("-", stdin=lambda: text)
    assert [each.spec for each in again] == found


@functools.cache
def folder() -> Path:
    """Return a folder of this process's own."""
    made = Path(tempfile.mkdtemp(prefix="byre-fuzz-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made

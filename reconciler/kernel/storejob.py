"""A store that is to be written anew, and what became of it: values of the Kernel port.

Pure; may be imported by `port`, both its implementations, actions and tests.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from statemachine.fileidentity import FileIdentity
from statemachine.units import Bytes


@attrs.frozen(kw_only=True)
class StoreJob:
    """A store that is to be written anew beside itself."""

    path: Path
    expected: FileIdentity
    into: Path
    """Where the new one is put; what is there is replaced."""
    base: Path
    base_expected: FileIdentity
    disk: Bytes
    """The size of the disk."""


@attrs.frozen(kw_only=True)
class Compaction:
    """What became of a store that was to be written anew, and the room that it takes."""

    made: FileIdentity | None
    """The new file; None if it would not have been smaller."""
    before: Bytes
    after: Bytes
    dropped: int = 0
    """How many exceptions were equal to the base."""

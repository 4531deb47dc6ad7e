"""Why a set of specs is not accepted, in one line a fault: file, disk, field, found, allowed.

Pure; may be imported by spec and by whoever checks specs further.
"""

from __future__ import annotations

import reprlib
from typing import Final

import attrs


@attrs.frozen(kw_only=True)
class SpecFault:
    """One reason why a set of specs is not accepted."""

    source: str
    disk: str
    field: str
    found: object
    allowed: str

    def __str__(self) -> str:
        """Print in one line: file, disk, field, found, allowed."""
        where = f"{self.source}: {self.disk}" if self.disk else self.source
        field = f": field {self.field!r}" if self.field else ""
        found = "nothing" if self.found is None else shown(self.found)
        return f"{where}{field}: found {found}; allowed: {self.allowed}"


def shown(found: object) -> str:
    """Return what was found in at most about 200 characters, however large it is.

    A whole `repr` first is no bound: YAML's anchors make a few lines into gigabytes.
    """
    if isinstance(found, str):
        return f"{found[:200]!r:.200}"
    try:
        return f"{_SHORT.repr(found):.200}"
    except ValueError:  # a number of too many digits, sys.set_int_max_str_digits
        return f"a {type(found).__name__}"


_SHORT: Final = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxstring = _SHORT.maxother = 100

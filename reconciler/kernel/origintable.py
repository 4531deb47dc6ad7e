"""The table of a base that is made longer, as device-mapper's targets: linear, then zero.

The snapshot target wants an origin of its own length, and a loop device ends with its file. Pure:
values in, values out. Whatever is not exactly such a table is none, never a guess.

Source: linear_status() in drivers/md/dm-linear.c ("7:0 0"); drivers/md/dm-zero.c takes no
parameters and prints none. May be imported by `dm` and tests.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from reconciler.kernel.dmstruct import Target
from statemachine.observed import DeviceNumber, OriginTable
from statemachine.units import Sectors

_LINEAR: Final = re.compile(r"([0-9]{1,4}:[0-9]{1,7}) 0")
_KINDS: Final = ["linear", "zero"]


def targets_of(table: OriginTable) -> tuple[Target, Target]:
    """Return the two targets; raises ValueError unless the whole is longer than the base."""
    if not 0 < table.base_length.count < table.length.count:
        msg = f"an origin of {table.length} over a base of {table.base_length} is none"
        raise ValueError(msg)
    rest = Sectors(table.length.count - table.base_length.count)
    return (
        Target(length=table.base_length, kind="linear", text=f"{table.base} 0"),
        Target(start=table.base_length, length=rest, kind="zero", text=""),
    )


def read(targets: Sequence[Target]) -> OriginTable | None:
    """Read what the kernel gives back for such a table; None for any other."""
    if [target.kind for target in targets] != _KINDS:
        return None
    below, rest = targets
    match = _LINEAR.fullmatch(below.text.strip())
    if match is None or rest.text.strip() or rest.start != below.length:
        return None
    return OriginTable(
        base=DeviceNumber.parse(match[1]),
        base_length=below.length,
        length=Sectors(below.length.count + rest.length.count),
    )

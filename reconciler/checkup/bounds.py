"""Checks of what is bounded: the limits of the root.

May be imported by doctor and tests.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from reconciler import allowance
from reconciler.allowance import Used
from reconciler.checkup.finding import Finding, Level, Patient
from reconciler.config import Settings
from statemachine.errors import UsageError
from statemachine.machine import Desired, State
from statemachine.units import Bytes

NEARLY: Final = 0.9
"""From which part of a limit on it is worth a warning."""
_BLOCK_BYTES: Final = 512


def limits(patient: Patient) -> Finding:
    """How much of the root's limits is used."""
    try:
        bounds = Settings.read(patient.root.config).limits
    except UsageError as error:
        return Finding(check="limits", level=Level.WARNING, found=error.message)
    records = [
        record
        for record in patient.records
        if record.state is not State.REMOVED or record.desired is not Desired.REMOVED
    ]
    used = Used(
        disks=len(records),
        bytes_promised=Bytes(sum(allowance.promise(r.spec, r.base.size) for r in records)),
        bytes_used=_taken(patient),
    )
    is_near = allowance.nearest(bounds, used) >= NEARLY
    return Finding(
        check="limits",
        level=Level.WARNING if is_near else Level.OK,
        found=allowance.summary(bounds, used) or "this root has none",
        remedy="remove disks, or raise [limits] in config.toml" if is_near else "",
    )


def _taken(patient: Patient) -> Bytes:
    found = 0
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        os.scandir(patient.root.cows) as entries,
    ):
        found = sum(entry.stat(follow_symlinks=False).st_blocks for entry in entries)
    return Bytes(found * _BLOCK_BYTES)

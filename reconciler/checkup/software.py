"""Checks of the Python that runs byre: the clash of two packages' names, and SQLite.

May be imported by doctor and tests.
"""

from __future__ import annotations

from typing import Final

from reconciler.checkup.finding import Finding, Level, Patient
from reconciler.clash import CLASH_REMEDY, OTHER, whose_statemachine

SQLITE_MIN: Final = (3, 35)
"""The log needs upserts (3.24); sqlite-utils' migrations drop columns (3.35)."""


def statemachine(patient: Patient) -> Finding:
    """Whether `import statemachine` gives ours."""
    wrong = whose_statemachine()
    other = patient.installed(OTHER)
    if not wrong and not other:
        found = "`statemachine` is byre's"
        return Finding(check="python-packages", level=Level.OK, found=found)
    found = wrong or f"{OTHER} {other} is installed beside byre, in a folder of the same name"
    return Finding(check="python-packages", level=Level.BLOCKER, found=found, remedy=CLASH_REMEDY)


def sqlite(patient: Patient) -> Finding:
    """Whether SQLite is new enough."""
    version = ".".join(map(str, patient.sqlite))
    if patient.sqlite >= SQLITE_MIN:
        return Finding(check="sqlite", level=Level.OK, found=f"SQLite {version}")
    wanted = ".".join(map(str, SQLITE_MIN))
    return Finding(
        check="sqlite",
        level=Level.BLOCKER,
        found=f"SQLite {version}; the log needs {wanted}",
        remedy="a Python that is linked with a newer SQLite",
    )

"""Going through the rows: each measurement once, in a yard of its own, and its figures judged.

A measurement that fails is told of in its rows, and the others go on. May be imported by cli and
tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from reconciler.bench.machine import describe
from reconciler.bench.plan import Plan
from reconciler.bench.results import Check, Measured, RowResult, Run
from reconciler.bench.rows import ROWS, Measurement, why_not
from reconciler.bench.targets import TARGETS
from reconciler.bench.yard import yard
from reconciler.kernel.port import Kernel
from statemachine.errors import ByreError, UsageError


def chosen(names: Sequence[str]) -> list[str]:
    """Return the rows that are meant, in the order of the table; all when none is named.

    Raises:
        UsageError: there is no such row.
    """
    for name in names:
        if name not in ROWS:
            msg = f"there is no row {name!r}; allowed are {', '.join(ROWS)}"
            raise UsageError(msg)
    return [name for name in ROWS if not names or name in names]


def run(names: Sequence[str], plan: Plan, kernel: Kernel, parent: Path, *, where: str) -> Run:
    """Measure some rows on this host.

    Args:
        names: of rows, as `chosen` returns them.
        plan: how much.
        kernel: this host's.
        parent: where the yards' folders are made.
        where: what to call this machine.
    """
    plan = attrs.evolve(plan, rows=frozenset(names))
    results: dict[str, RowResult] = {}
    for name in names:
        reason = why_not(ROWS[name], kernel)
        if reason:
            results[name] = _without(name, reason)
        elif name not in results:
            results |= _measured(ROWS[name].measure, names, plan, kernel, parent)
    return Run(
        machine=describe(parent, where=where),
        quick=plan.quick,
        rounds=plan.rounds,
        rows=tuple(results[name] for name in names),
    )


def _measured(
    measure: Measurement, names: Sequence[str], plan: Plan, kernel: Kernel, parent: Path
) -> dict[str, RowResult]:
    """Make one measurement; returns those of its rows that are wanted."""
    its = [name for name in names if ROWS[name].measure == measure]
    try:
        with yard(kernel, parent) as place:
            found = measure(place, plan)
    except ByreError as error:
        reason = f"it failed: {error.message}"
        return {name: attrs.evolve(_without(name, reason), failed=True) for name in its}
    return {name: judged(name, found[name]) for name in its}


def judged(name: str, measured: Measured) -> RowResult:
    """Return a row's result: what was measured, against its targets."""
    checks = [
        Check(
            target=str(target),
            measured=target.say(measured.values[target.key]),
            is_met=target.is_met(measured.values[target.key]),
        )
        for target in TARGETS[name]
    ]
    return RowResult(
        name=name,
        title=ROWS[name].title,
        series=measured.series,
        points=measured.points,
        checks=tuple(checks),
        notes=measured.notes,
    )


def _without(name: str, reason: str) -> RowResult:
    return RowResult(name=name, title=ROWS[name].title, left_out=reason)

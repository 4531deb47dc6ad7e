"""A whole process that asks one question, against Python that only imports what it must.

Both read bytecode, as an installed program does. It is kept in the yard and written by the first
round, which does not count. So it does not matter whether this checkout has any, and whether
the caller lets Python write some. May be imported by the package only.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Final

from reconciler.bench import programs
from reconciler.bench.life import in_ms
from reconciler.bench.plan import Plan
from reconciler.bench.results import Measured, quantile
from reconciler.bench.simulated import simulation
from reconciler.bench.stopwatch import timed_s
from reconciler.bench.yard import Yard

_IMPORTS: Final = "import sqlite3, attrs, click"
_NO_BYTECODE: Final = "PYTHONDONTWRITEBYTECODE"


def measure(yard: Yard, plan: Plan) -> Mapping[str, Measured]:
    """Measure `byre get` of many disks, and the imports alone, in turn."""
    root = yard.in_memory / "start"
    plan.tell(f"a log with {plan.crowd} live disks")
    with simulation(root) as simulated:
        simulated.bring_live(plan.crowd)
    commands = {
        "byre get": programs.byre("--root", root, "get", "-o", "json"),
        "imports": programs.python("-c", _IMPORTS),
    }
    environment = {name: value for name, value in os.environ.items() if name != _NO_BYTECODE}
    environment["PYTHONPYCACHEPREFIX"] = str(yard.in_memory / "bytecode")
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(plan.rounds + 1):
        for name, words in commands.items():
            took_s = timed_s(functools.partial(programs.run_unheard, words, environment))
            if number:  # the first one reads what the others find in memory
                samples[name].append(took_s)
    value = quantile(samples["byre get"], 50) / quantile(samples["imports"], 50)
    note = f"{plan.crowd} disks"
    return {"get": Measured(values={"imports": value}, series=in_ms(samples), notes=(note,))}

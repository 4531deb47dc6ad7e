"""A whole process that asks one question, against Python that only imports what it must.

Both read bytecode, as an installed program does. It is kept in the yard and written by the first
round, which does not count. So it does not matter whether this checkout has any, and whether
PYTHONDONTWRITEBYTECODE is set. May be imported by the package only.
"""

from __future__ import annotations

import functools
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
_COMMAND: Final = "from reconciler.cli import main; main()"
_KEEP_BYTECODE: Final = "import sys; sys.dont_write_bytecode = False"


def measure(yard: Yard, plan: Plan) -> Mapping[str, Measured]:
    """Measure `byre get` of many disks, and the imports alone, in turn."""
    root = yard.in_memory / "start"
    plan.tell(f"a log with {plan.crowd} live disks")
    with simulation(root) as simulated:
        simulated.bring_live(plan.crowd)
    kept = ("-X", f"pycache_prefix={yard.in_memory / 'bytecode'}", "-c")
    asked = ("--root", str(root), "get", "-o", "json")
    commands = {
        "byre get": programs.python(*kept, f"{_KEEP_BYTECODE}; {_COMMAND}", *asked),
        "imports": programs.python(*kept, f"{_KEEP_BYTECODE}; {_IMPORTS}"),
    }
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(plan.rounds + 1):
        for name, words in commands.items():
            took_s = timed_s(functools.partial(programs.run_unheard, words))
            if number:  # the first one reads what the others find in memory
                samples[name].append(took_s)
    value = quantile(samples["byre get"], 50) / quantile(samples["imports"], 50)
    note = f"{plan.crowd} disks"
    return {"get": Measured(values={"imports": value}, series=in_ms(samples), notes=(note,))}

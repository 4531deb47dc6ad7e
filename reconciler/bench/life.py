"""One disk at a time: created, paused, restored, lost by hand, removed; by everybody in turn.

The contestants alternate, each step begins when udev has finished with the one before, and who
comes first changes with each round. May be imported by the package only.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from reconciler.bench.contestants import Contestant, Exec, Floor
from reconciler.bench.plan import Plan
from reconciler.bench.results import Measured, Series, quantile
from reconciler.bench.stopwatch import timed_s
from reconciler.bench.tended import KEEPER, Alone, Tended
from reconciler.bench.yard import Yard

STEPS: Final = ("create", "pause", "restore", "remove")
_BY_THE_LOG: Final = "byre, by its log"
Samples = dict[str, dict[str, list[float]]]


def measure(yard: Yard, plan: Plan) -> Mapping[str, Measured]:
    """Measure a life of each contestant, round by round."""
    tended, alone = Tended(yard), Alone(yard, "alone")
    for client in (tended, alone):
        client.create(KEEPER)
    contestants: list[Contestant] = [Exec(yard), Floor(yard), tended, alone]
    samples: Samples = defaultdict(lambda: defaultdict(list))
    for number in range(plan.rounds):
        plan.tell(f"life {number + 1} of {plan.rounds}")
        for contestant in contestants:
            _live(yard, contestant, f"disk-{number}", samples)
        contestants.append(contestants.pop(0))
    for client in (tended, alone):
        client.remove(KEEPER)
        client.close()
    return {step: _measured(step, samples) for step in (*STEPS, "heal")}


def _live(yard: Yard, contestant: Contestant, disk: str, samples: Samples) -> None:
    """Go through one life, and note how long each step took."""
    for step in STEPS:
        yard.settle()
        if step == "remove" and isinstance(contestant, Tended):
            samples["heal"][contestant.name].append(contestant.heal_s(disk))
            yard.settle()
        change = getattr(contestant, step)
        samples[step][contestant.name].append(timed_s(functools.partial(change, disk)))
        if isinstance(contestant, Tended):
            samples[step][_BY_THE_LOG].append(contestant.by_the_log_s(disk))


def _measured(step: str, samples: Samples) -> Measured:
    medians = {name: quantile(found, 50) for name, found in samples[step].items()}
    if step == "heal":
        values = {"create": medians["byre"] / quantile(samples["create"]["byre"], 50)}
    else:
        values = {
            "exec": medians["exec"] / medians["byre"],
            "floor": medians["byre"] / medians["floor"],
        }
    return Measured(values=values, series=in_ms(samples[step]))


def in_ms(samples: Mapping[str, list[float]]) -> tuple[Series, ...]:
    """Return samples in seconds as series in milliseconds."""
    return tuple(
        Series(name=name, unit="ms", samples=tuple(round(each * 1e3, 3) for each in found))
        for name, found in samples.items()
    )

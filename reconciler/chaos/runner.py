"""One run from a seed: so many acts, then everything is mended, and then the judgement.

A run of fewer steps does the same as the beginning of a longer one. May be imported by the
package only.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Final

import attrs

from reconciler.chaos import failing, meddling, verdict, wishes
from reconciler.chaos.model import Model
from reconciler.chaos.wishes import Act
from reconciler.chaos.world import World
from reconciler.specs import Sourced
from statemachine.machine import Desired, Trigger
from statemachine.record import Record

DISKS: Final = 4
DISKS_MAX: Final = 64
STEPS: Final = 60
STEPS_MAX: Final = 100_000
CALM_S: Final = (0.1, 1.0, 5.0, 61.0, 600.0)
"""What time passes by; some of it is longer than a full look comes round."""

MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a private folder is made there
WORKS: Final = 0.6
"""How often the reconciler works after a step."""
RESTARTS: Final = 0.5
"""How often it is started anew after all was mended."""
TRIES: Final = 5
"""How many acts are tried in one step until there is something to do one to."""

_ID: Final = re.compile(r"[0-9a-f]{32}")


@attrs.frozen(kw_only=True)
class Plan:
    """Which run: everything that it depends on."""

    seed: int
    steps: int = STEPS
    disks: int = DISKS

    def command(self) -> str:
        """Return the command that makes this run."""
        disks = "" if self.disks == DISKS else f" --disks {self.disks}"
        return f"byre chaos --seed {self.seed} --steps {self.steps}{disks}"


@attrs.frozen(kw_only=True)
class Step:
    """One act: when, of which kind ("asked", "broke", ...), and what it was in words."""

    number: int
    at: str
    kind: str
    text: str


@attrs.frozen(kw_only=True)
class Report:
    """What a run did and what came of it; it converged if there are no problems."""

    plan: Plan
    steps: tuple[Step, ...]
    broke: dict[str, int]
    states: dict[str, str]
    figures: dict[str, int]
    problems: tuple[str, ...]

    @property
    def converged(self) -> bool:
        """Whether everything was in the end as it was asked to be, or explained."""
        return not self.problems


def run(plan: Plan) -> Report:
    """Make one run, in a temporary folder of its own.

    Args:
        plan: which one.
    """
    where = MEMORY if MEMORY.is_dir() and _may_write(MEMORY) else None
    with tempfile.TemporaryDirectory(prefix="byre-chaos-", dir=where) as folder:
        return _Run(plan, Path(folder)).report()


def smallest(plan: Plan) -> Plan:
    """Return the plan with the least steps that does not converge, of one that does not."""
    for steps in range(plan.steps):
        fewer = attrs.evolve(plan, steps=steps)
        if not run(fewer).converged:
            return fewer
    return plan


class _Run:
    """One run's world and what is known of it."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._world = World(folder, seed=plan.seed, disks=plan.disks)
        self._model = Model()
        self._steps: list[Step] = []
        self._problems: list[str] = []
        self._names: dict[str, str] = {}
        self._states: dict[str, str] = {}

    def report(self) -> Report:
        """Make the run and tell of it."""
        try:
            self._go()
            events = self._world.log.last_seq()
        except Exception as error:  # noqa: BLE001 - a mistake of byre's is what is looked for
            self._problems.append(f"it ended with {type(error).__name__}: {error}")
            events = 0
        finally:
            self._world.close()
        return Report(
            plan=self._plan,
            steps=tuple(self._steps),
            broke=dict(sorted(self._model.broke.items())),
            states=self._states,
            figures={**attrs.asdict(self._world.counts), "events": events},
            problems=tuple(map(self._plain, self._problems)),
        )

    def _go(self) -> None:
        stages = (self._break, self._mend, self._retry, self._revive, self._remove)
        for stage in stages:
            stage()
            self._names |= {r.id: r.name for r in self._world.log.records()}
            self._problems += verdict.foreign(self._world, self._model)
            if self._problems:
                return

    # --- the stages --------------------------------------------------------------------------

    def _break(self) -> None:
        """Do the acts, and let the reconciler work in between, more often than not."""
        world = self._world
        for number in range(1, self._plan.steps + 1):
            kind, text = self._act()
            self._names |= {r.id: r.name for r in world.log.records()}
            self._tell(number, kind, text)
            if world.dice.random() < WORKS:
                world.work()
            self._problems += verdict.foreign(world, self._model)
            if self._problems:
                return

    def _act(self) -> tuple[str, str]:
        world, model = self._world, self._model
        weights = [weight for weight, _, _ in ACTS]
        for _ in range(TRIES):
            [(_, kind, act)] = world.dice.choices(ACTS, weights)
            text = act(world, model)
            if text is not None:
                return kind, text
        return "waited", let_time_pass(world, model)

    def _mend(self) -> None:
        """Mend all that is broken, and look whether what is not there waits with a reason."""
        world, model = self._world, self._model
        world.kernel.faults.clear()
        while model.broken:
            self._tell(0, "mended", model.broken.pop().heal())
        if world.dice.random() < RESTARTS:
            world.restart()
        world.settle()
        self._problems += verdict.after_healing(world, model)
        self._problems += verdict.the_log(world)

    def _retry(self) -> None:
        """Have whatever stalled tried again; all must be there then, and stay so."""
        world = self._world
        ill = [record.name for record in world.log.records() if record.failure or record.fault]
        world.declarer().retry(ill)
        world.settle()
        self._states = {record.name: _state(record) for record in world.log.records()}
        self._problems += verdict.after_retrying(world, self._model)
        before = (world.log.last_seq(), world.kernel.faults.points)
        world.settle()
        if before != (world.log.last_seq(), world.kernel.faults.points):
            self._problems.append("another full look changed something, though all was there")

    def _revive(self) -> None:
        """Bring every disk live, and read all that was flushed."""
        world = self._world
        for record in world.log.records():
            if record.desired is not Desired.REMOVED and record.fault is None:
                spec = attrs.evolve(record.wanted, state=Desired.LIVE)
                world.declarer().apply([Sourced("chaos", spec)])
                self._model.asked[record.name] = Desired.LIVE
        world.settle()
        self._problems += verdict.after_retrying(world, self._model)

    def _remove(self) -> None:
        """Remove every disk; nothing must be left, and the log must tell of it all."""
        world = self._world
        for record in world.log.records():
            if record.desired is not Desired.REMOVED:
                world.declarer().command([record.name], Trigger.REMOVE)
                self._model.asked[record.name] = Desired.REMOVED
        world.settle()
        self._problems += verdict.after_removing(world, self._model)
        self._problems += verdict.the_log(world)

    # --- words -------------------------------------------------------------------------------

    def _tell(self, number: int, kind: str, text: str) -> None:
        step = Step(number=number, at=self._world.now(), kind=kind, text=self._plain(text))
        self._steps.append(step)

    def _plain(self, text: str) -> str:
        """Say the same without what is another in each run: ids, and the log's folder."""
        text = text.replace(str(self._folder), "ROOT")
        text = _ID.sub(lambda found: self._names.get(found[0], "unknown"), text)
        return text.replace(self._world.log.root_id, "ROOT-ID")


def let_time_pass(world: World, model: Model) -> str:
    """Let time pass, and the daemon's full look come round when it is due."""
    del model
    seconds = world.dice.choice(CALM_S)
    world.clock.advance_s(seconds)
    if seconds >= world.settings.resync_s:
        world.wake_all()
    return f"{seconds} s pass"


def mend_one(world: World, model: Model) -> str | None:
    """Mend one thing that is broken."""
    del world
    return model.broken.pop(0).heal() if model.broken else None


def _state(record: Record) -> str:
    ill = record.fault or record.failure
    return f"{record.state}: {ill.kind}" if ill else str(record.state)


def _may_write(folder: Path) -> bool:
    return os.access(folder, os.W_OK)


ACTS: Final[tuple[tuple[int, str, Act], ...]] = (
    (14, "asked", wishes.declare),
    (14, "asked", wishes.command),
    (3, "asked", wishes.retry),
    (10, "wrote", wishes.write),
    (3, "broke", wishes.open_disk),
    (6, "broke", failing.fail_calls),
    (2, "broke", failing.fail_commits),
    (4, "broke", failing.crash_in_a_call),
    (3, "broke", failing.crash_in_a_commit),
    (2, "broke", failing.restart),
    (2, "broke", failing.reboot),
    (1, "broke", failing.cut_the_power),
    (2, "broke", failing.fill_up),
    (2, "broke", failing.let_udev_look),
    (1, "broke", failing.set_the_clock),
    (3, "broke", meddling.remove_device),
    (2, "broke", meddling.suspend_device),
    (2, "broke", meddling.rename_device),
    (4, "broke", meddling.detach_loop),
    (2, "broke", meddling.give_another_table),
    (2, "broke", meddling.plant_foreign_device),
    (2, "broke", meddling.plant_foreign_loop),
    (3, "broke", meddling.delete_link),
    (2, "broke", meddling.occupy_link),
    (1, "broke", meddling.delete_cow),
    (2, "broke", meddling.swap_cow),
    (1, "broke", meddling.damage_header),
    (1, "broke", meddling.move_base),
    (9, "waited", let_time_pass),
    (6, "mended", mend_one),
)
"""How often each act is chosen, as what it counts, and what it does."""

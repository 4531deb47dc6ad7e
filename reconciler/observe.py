"""Looking at one disk: which driver it has, what the kernel shows of it, what that amounts to.

Changes nothing. May be imported by reconcile and by the commands that only look.
"""

from __future__ import annotations

import hashlib
from typing import Final

import attrs

from reconciler import allowance
from reconciler.bases import BaseLoops
from reconciler.config import Settings
from reconciler.drivers.clone import Clone
from reconciler.drivers.dm_snapshot import DmSnapshot
from reconciler.drivers.port import Appraisal, Driver, Ground, Shape, View
from reconciler.kernel.port import Capabilities, Kernel
from reconciler.root import Root
from statemachine.errors import ActionError
from statemachine.fileidentity import FileIdentity
from statemachine.machine import LIVE, Desired, State
from statemachine.observed import ObservedDisk
from statemachine.record import Record
from statemachine.spec import DriverChoice

DRIVERS: Final[dict[str, Driver]] = {
    DriverChoice.DM_SNAPSHOT: DmSnapshot(),
    DriverChoice.CLONE: Clone(),
}


@attrs.frozen
class Choice:
    """A driver, why `auto` did not take the real one, and why it cannot work here if so."""

    driver: Driver
    fell_back_because: str
    unavailable: str


def choose(record: Record, capabilities: Capabilities) -> Choice:
    """Return the driver of a disk: what its file was made with, else what its spec asks for."""
    wanted = record.wanted.driver
    if record.driver and record.cow is not None:
        driver = DRIVERS[record.driver]
        return Choice(driver, record.driver_reason, driver.unavailable(capabilities))
    if wanted is DriverChoice.AUTO:
        real = DRIVERS[DriverChoice.DM_SNAPSHOT]
        reason = real.unavailable(capabilities)
        return Choice(DRIVERS[DriverChoice.CLONE], reason, "") if reason else Choice(real, "", "")
    driver = DRIVERS[wanted]
    return Choice(driver, "", driver.unavailable(capabilities))


def look(
    kernel: Kernel, bases: BaseLoops, root: Root, record: Record, settings: Settings
) -> tuple[View, Choice]:
    """Look at one disk, and at the ground it stands on.

    Returns:
        The view that `plan.decide` decides upon, and the driver's choice.

    Raises:
        ActionError: a question to the kernel failed.
    """
    free = kernel.free_space(root.cows)
    begins = record.state not in LIVE and record.desired in (Desired.ATTACHED, Desired.LIVE)
    ground = Ground(
        over_limit=allowance.why_full(settings.limits, kernel, root.cows) if begins else "",
        root=root,
        boot_id=kernel.boot_id(),
        capabilities=kernel.capabilities(),
        space=settings.watermarks.judge(available=free.available, total=free.total),
        cow_levels=settings.cow_levels,
    )
    choice = choose(record, ground.capabilities)
    cow = record.cow_file if record.cow_path else choice.driver.cow_path(record, ground)
    if choice.unavailable and record.state is State.ABSENT and record.in_flight is None:
        # What its driver would look at cannot be asked for, and nothing of it can be there.
        observed, seen = _unseen(kernel, record), Appraisal(shape=Shape.NOTHING)
    else:
        observed = choice.driver.observe(kernel, bases, record, cow)
        seen = choice.driver.appraise(record, observed, ground)
    view = View(record=record, observed=observed, seen=seen, driver=choice.driver, ground=ground)
    return view, choice


def base_of(kernel: Kernel, record: Record) -> FileIdentity:
    """Return the base as this boot's loops know it: the pin, or the file of after a reboot."""
    if record.base_boot_id == kernel.boot_id():
        return record.base
    try:
        return kernel.identify(record.wanted.base, follow=True) or record.base
    except ActionError:  # one base that cannot be looked at must not stop all others
        return record.base


def _unseen(kernel: Kernel, record: Record) -> ObservedDisk:
    base = kernel.identify(record.wanted.base, follow=True)
    return ObservedDisk(base=base, cow=None, cow_header="missing", base_loop=None, cow_loop=None)


def world(observed: ObservedDisk, capabilities: Capabilities) -> str:
    """Digest the facts on which a refusal can hang: while they are the same, trying is idle.

    Left out is what changes by mere use: open counts, fill levels, the CoW file's mtime.
    """
    cow, dm = observed.cow, observed.dm
    facts = (
        observed.base,
        cow and (cow.device, cow.inode, cow.size),
        observed.cow_header,
        dm and (dm.name, dm.uuid, dm.device, dm.live, dm.suspended, dm.table),
        observed.node,
        observed.device_node,
        observed.link,
        observed.jail,
        capabilities,
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

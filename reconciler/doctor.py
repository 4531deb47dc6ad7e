"""What this host can do for byre, and what will hurt: a list of small checks.

    examine(patient_of(root)) → findings, each with its remedy

What stops every driver is a blocker; what only makes byre fall back is a warning. Nothing is
changed: a check that has to write uses files without a name. May be imported by cli.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from reconciler.checkup import bounds, devices, neighbours, software, storage
from reconciler.checkup.finding import Check, Finding, Level, Patient
from reconciler.kernel.port import Kernel
from reconciler.root import Root
from statemachine.errors import ByreError
from statemachine.logreader import LogReader
from statemachine.names import DEVICE_PREFIX
from statemachine.observed import Loop
from statemachine.record import Record

CHECKS: Final[tuple[Check, ...]] = (
    software.statemachine,
    software.sqlite,
    devices.kernel_version,
    devices.privilege,
    devices.dm,
    devices.loop_control,
    devices.max_loop,
    devices.loop_folder,
    storage.writable,
    storage.log,
    storage.room,
    bounds.limits,
    storage.reflink,
    storage.nodev,
    neighbours.udevd,
    neighbours.udev_rule,
    neighbours.lvm,
    neighbours.multipath,
    neighbours.inotify,
    devices.ipc_namespace,
)
"""All checks, in the order in which they are told."""


def examine(patient: Patient) -> list[Finding]:
    """Make every check; one that cannot look says so and stops none of the others."""
    return [_made(check, patient) for check in CHECKS]


def is_blocked(findings: Iterable[Finding]) -> bool:
    """Tell whether byre cannot work here at all."""
    return any(finding.level is Level.BLOCKER for finding in findings)


def patient_of(root: Root, kernel: Kernel, *, device_prefix: str = DEVICE_PREFIX) -> Patient:
    """Return this host with a root that need not exist."""
    return Patient(
        root=root,
        device_prefix=device_prefix,
        records=_records(root),
        loops=_loops_of(kernel),
    )


def _made(check: Check, patient: Patient) -> Finding:
    try:
        return check(patient)
    except OSError as error:
        found = f"could not be checked: {error}"
        remedy = "run `byre doctor` as the user that byre runs as"
        return Finding(
            check=check.__name__.replace("_", "-"), level=Level.WARNING, found=found, remedy=remedy
        )


def _records(root: Root) -> tuple[Record, ...]:
    """Return the root's disks; none when the log cannot be read, which is a check of its own."""
    try:
        with LogReader(root.log) as log:
            return tuple(log.records())
    except ByreError:
        return ()


def _loops_of(kernel: Kernel) -> Callable[[], tuple[Loop, ...]]:
    def loops() -> tuple[Loop, ...]:
        try:
            return kernel.loops()
        except ByreError:
            return ()

    return loops

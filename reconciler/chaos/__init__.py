"""`byre chaos`: a seeded run of wishes and misfortune on a simulated host, and whether byre copes.

A run makes a throw-away root on the kernel in memory, with a clock that it moves itself. It
declares, pauses, restores and removes disks and writes to them, and it breaks what it can: calls
of the port, the process, the host, and everything that a person can do by hand. Then it mends
what it broke, and looks whether every disk is where it was asked to be.

One thread, no dice but the seed's and no clock but its own: the same seed gives the same run.
May be imported by cli; the package's modules by the package only.
"""

from reconciler.chaos.runner import (
    DISKS,
    DISKS_MAX,
    STEPS,
    STEPS_MAX,
    Plan,
    Report,
    run,
    smallest,
)

__all__ = ["DISKS", "DISKS_MAX", "STEPS", "STEPS_MAX", "Plan", "Report", "run", "smallest"]

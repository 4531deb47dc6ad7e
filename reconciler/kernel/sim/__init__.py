"""A kernel in memory: the same port, with faults, crash points and a user's side.

`SimKernel` behaves as Linux 6.1 was seen to behave (tests/contract runs on both), needs no
privilege, no device-mapper and no disk, and is deterministic: no thread, no clock and no dice of
its own. It is part of the package, so that users can test their own code on byre with it.

May be imported by tests, `byre bench` and `byre chaos`; never by what works on a real host.
"""

from reconciler.kernel.sim.faults import Call, Fault, Faults, SimCrash
from reconciler.kernel.sim.kernel import SimKernel
from reconciler.kernel.sim.users import Handle

__all__ = ["Call", "Fault", "Faults", "Handle", "SimCrash", "SimKernel"]

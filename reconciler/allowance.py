"""What is there and what is asked, against the limits of a root.

How many disks there are and what they promise is decided in the log's transaction; what their
files take is measured before, as a measurement is old in any case.
May be imported by the API, observe and the commands that only look.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from reconciler.drivers.cow_room import bound
from reconciler.kernel.port import Kernel
from reconciler.limits import Limits
from statemachine import admission
from statemachine.admission import Admission, Admit
from statemachine.errors import LimitReached, RefusedError
from statemachine.logreader import LogReader
from statemachine.spec import DiskSpec, DriverChoice
from statemachine.units import Bytes

_NAMELESS: Final = {"name": "any", "base": "/", "state": "live"}


@attrs.frozen(kw_only=True)
class Used:
    """How much of the limits is used; all of it counted, whether it is limited or not."""

    disks: int
    bytes_promised: Bytes
    bytes_used: Bytes


def used(log: LogReader, kernel: Kernel, cows: Path) -> Used:
    """Count what is there now; asks the size of every CoW file."""
    return Used(
        disks=log.at_one_moment(admission.count),
        bytes_promised=Bytes(log.at_one_moment(lambda seen: admission.promised(seen, promise))),
        bytes_used=taken(kernel, cows),
    )


def summary(limits: Limits, there: Used) -> str:
    """Return how much of each limit is used, for people; "" when there is none."""
    parts = {
        "disks": (there.disks, limits.disks),
        "promised": (there.bytes_promised, limits.bytes_promised),
        "used": (there.bytes_used, limits.bytes_used),
    }
    said = (f"{what}: {now} of {most}" for what, (now, most) in parts.items() if most is not None)
    return ", ".join(said)


def nearest(limits: Limits, there: Used) -> float:
    """Return how much of the limit that is nearest is used: 1.0 for all of it."""
    pairs = (
        (there.disks, limits.disks),
        (there.bytes_promised.count, limits.bytes_promised),
        (there.bytes_used.count, limits.bytes_used),
    )
    return max((now / max(1, int(most)) for now, most in pairs if most is not None), default=0.0)


def taken(kernel: Kernel, cows: Path) -> Bytes:
    """Return how much room the files of all disks take; one question for each."""
    return Bytes(sum(kernel.allocated(cows / name).count for name in kernel.list_folder(cows)))


def why_full(limits: Limits, kernel: Kernel, cows: Path) -> str:
    """Say why nothing may begin or go live, by what is taken; "" when it may."""
    if limits.bytes_used is None:
        return ""
    there = taken(kernel, cows)
    if there < limits.bytes_used:
        return ""
    return f"the disks of this root take {there}; limits.bytes_used is {limits.bytes_used}"


def promise(spec: Mapping[str, str], base: Bytes) -> int:
    """Return how large a disk's own file may become."""
    wanted = DiskSpec.from_data({**_NAMELESS, **spec})
    return base.count if wanted.driver is DriverChoice.CLONE else bound(wanted, base).count


class Allowance:
    """What a root's limits leave; `admit` is asked in the log's transaction.

    Args:
        limits: the bounds.
        kernel: is asked what files take.
        cows: the folder of the disks' own files.
    """

    def __init__(self, limits: Limits, kernel: Kernel, cows: Path) -> None:
        self._limits = limits
        self._kernel = kernel
        self._cows = cows
        self._full = ""

    def measure(self) -> None:
        """Look what the files take, before something is declared: no log waits for that."""
        self._full = why_full(self._limits, self._kernel, self._cows)

    @property
    def admit(self) -> Admit | None:
        """What refuses a request that would pass a limit; None when nothing is limited."""
        return self._admit if self._limits != Limits() else None

    def _admit(self, asked: Admission) -> None:
        """Refuse what adds to something that is then over its limit; what takes away is free.

        Raises:
            RefusedError: with what is there, what is asked and what is allowed.
        """
        limits, more_disks = self._limits, asked.more_disks()
        if more_disks > 0 and self._full:
            raise RefusedError(self._full, hint=LimitReached.HINT)
        if limits.disks is not None and more_disks > 0:
            total = asked.disks()
            if total > limits.disks:
                there = str(total - more_disks)
                raise LimitReached("disks", there, str(more_disks), str(limits.disks))
        if limits.bytes_promised is not None and (more := asked.more_promised(promise)) > 0:
            total = asked.promised(promise)
            if total > limits.bytes_promised.count:
                there = str(Bytes(max(0, total - more)))
                most = str(limits.bytes_promised)
                raise LimitReached("bytes_promised", there, str(Bytes(more)), most)

"""Whether a disk is in use, how long that is waited for, and what becomes of it then.

Nobody is ever thrown out: a pause or a removal of a disk in use waits for the last holder, and the
spec says for how long (`busy_timeout_s`) and what then (`on_busy`). The time counts from the first
look that found the disk in use, which is in the log, so it goes on over a restart.

What this module does not do: it changes nothing, appends nothing and waits for nothing. Who holds
a loop device is known by name only: the kernel counts its openers and tells nobody.
May be imported by reconcile, declare and the commands that only look.
"""

from __future__ import annotations

from typing import Final

import attrs

from reconciler.actions import in_use_error, lasting
from reconciler.config import Settings
from reconciler.kernel.port import Kernel
from statemachine.errors import ActionError, BlockedError, PermanentError
from statemachine.machine import LIVE, Trigger
from statemachine.names import DmUuid
from statemachine.observed import DeviceNumber, Holder, ObservedDisk
from statemachine.plight import Failure
from statemachine.record import Record
from statemachine.spec import OnBusy

KIND: Final = "in-use"
UNNAMED_ATTEMPTS: Final = 3
"""After so many failed attempts an open device is in use, though nobody can be named: udev's looks
are over by then."""
SLOWING: Final = 4
"""While nothing wakes it, a disk is looked at again after this part of the time waited so far."""

_LEAST_S: Final = 0.01
_NS: Final = 1_000_000_000


@attrs.frozen(kw_only=True)
class Held:
    """Somebody has a disk's device open."""

    path: str
    """What people call the device."""
    node: str
    """The kernel's own node of it."""
    device: DeviceNumber
    holders: tuple[Holder, ...]
    """Who is known to; empty when the open count tells of somebody who cannot be named."""


@attrs.frozen(kw_only=True)
class Verdict:
    """What a disk in use amounts to by now. `overdue`: `busy_timeout_s` has passed."""

    error: ActionError
    overdue: bool


def look(
    kernel: Kernel, record: Record, observed: ObservedDisk, trigger: Trigger | None
) -> Held | None:
    """Find out who has a disk's device open.

    An open count without a name is udev, for a moment, or a holder that has let go and is still
    being closed. It counts as in use for a disk that is waiting for its holders already, and for
    one that was tried in vain before.

    Args:
        kernel: is asked for the holders of an open device; slow (/proc).
        record: the disk.
        observed: as it was seen a moment ago.
        trigger: what shall be done; None to name those that can be named, whatever it is.

    Returns:
        None when nobody has it open, or only udev for a moment.
    """
    found = _device(record, observed)
    if found is None:
        return None
    path, node, device = found
    holders = lasting(kernel.holders(device))
    held = Held(path=path, node=node, device=device, holders=holders)
    is_counted = observed.dm is not None
    return held if holders or (is_counted and _was_in_the_way(record, trigger)) else None


def _device(record: Record, observed: ObservedDisk) -> tuple[str, str, DeviceNumber] | None:
    dm, loop = observed.dm, observed.cow_loop
    if dm is not None and dm.uuid == str(DmUuid(record.id, record.generation)):
        return (f"/dev/mapper/{dm.name}", dm.node, dm.device) if dm.open_count else None
    if dm is None and loop is not None and record.state in LIVE:
        return loop.path, loop.path, loop.device
    return None


def _was_in_the_way(record: Record, trigger: Trigger | None) -> bool:
    failure = record.failure
    if failure is None or failure.trigger is not trigger:
        return False
    return failure.kind == KIND or record.attempts >= UNNAMED_ATTEMPTS


def time_waited_s(record: Record, trigger: Trigger, now_ns: int) -> float:
    """Return for how long this trigger has been waiting for holders; 0.0 if it is not."""
    failure = record.failure
    if failure is None or failure.kind != KIND or failure.trigger is not trigger:
        return 0.0
    return max(0.0, (now_ns - failure.since) / _NS)


def judge(error: ActionError, record: Record, waited_s: float) -> Verdict:
    """Say what being in use amounts to after a time.

    Args:
        error: names the holders.
        record: whose spec decides.
        waited_s: seconds since it was found in use first.
    """
    spec = record.wanted
    if waited_s < spec.busy_timeout_s:
        return Verdict(error=error, overdue=False)
    after = f"{error.message}, longer than {spec.busy_timeout_s:g} s"
    if spec.on_busy is OnBusy.WAIT:
        return Verdict(error=_again(BlockedError, error, after, error.hint), overdue=True)
    hint = f"the disk is as it was; close it, then `byre retry {record.name}`, or ask again"
    given_up = _again(PermanentError, error, f"{after}: given up (on_busy is fail)", hint)
    return Verdict(error=given_up, overdue=True)


def _again(kind: type[ActionError], error: ActionError, message: str, hint: str) -> ActionError:
    return kind(message, errno=error.errno, kind=error.kind, holders=error.holders, hint=hint)


def error_of(held: Held) -> BlockedError:
    """Return being held as an error that names the holders."""
    return in_use_error(held.path, held.holders)


def has_given_up(failure: Failure | None) -> bool:
    """Tell whether a disk in use was given up, and waits for somebody to ask again."""
    is_permanent = failure is not None and failure.consequence == PermanentError.consequence
    return failure is not None and failure.kind == KIND and is_permanent


def poll_s(record: Record, waited_s: float, settings: Settings) -> float:
    """Return when to look again if nothing wakes this disk: ever more slowly, up to a bound.

    Not later than the moment at which `on_busy` decides.
    """
    slowest_s = max(settings.blocked_poll_s, settings.blocked_poll_cap_s)
    delay_s = min(max(settings.blocked_poll_s, waited_s / SLOWING), slowest_s)
    left_s = record.wanted.busy_timeout_s - waited_s
    return max(min(delay_s, left_s), _LEAST_S) if left_s > 0 else delay_s

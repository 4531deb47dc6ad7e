"""What fails by itself: calls of the port, commits, the process, the host, its power, its room.

Each act says in words what it did, or None when there was nothing to do it to. May be imported
by the package only.
"""

from __future__ import annotations

import errno
from typing import Final

from reconciler.chaos.log import COMMIT
from reconciler.chaos.model import Breakage, Model
from reconciler.chaos.world import ROOM, ROOT, World
from reconciler.kernel.port import Kernel
from reconciler.kernel.sim.faults import When
from statemachine.errors import LogUnavailable, PermanentError
from statemachine.units import Bytes

CALLS: Final = tuple(name for name in vars(Kernel) if not name.startswith("_"))
"""Every call of the port, in its order."""
ERRNOS: Final = (errno.EBUSY, errno.EIO, errno.ENOSPC, errno.ENOMEM, errno.EAGAIN)
SHORT: Final = "short"
"""The kind of an answer that ends early."""

SIDES: Final[tuple[When, ...]] = ("before", "after")
_WHENS: Final[tuple[When, ...]] = ("before", "before", "before", "after")


def fail_calls(world: World, model: Model) -> str | None:
    """Let the next few calls of one name fail."""
    call, when = world.dice.choice(CALLS), world.dice.choice(_WHENS)
    number = world.dice.choice((*ERRNOS, 0))
    times, after = world.dice.randint(1, 4), world.dice.randint(0, 3)
    what = errno.errorcode[number] if number else SHORT
    error = number or PermanentError(f"{call}: the answer ends early", kind=SHORT)
    world.kernel.faults.fail(call, error, times=times, after=after, when=when)
    model.count(f"{what} from the kernel", what.lower())
    return f"{call} will fail {times} times with {what}, {when} it does anything"


def fail_commits(world: World, model: Model) -> str | None:
    """Let the next few commits of the log fail, with nothing written."""
    times, after = world.dice.randint(1, 3), world.dice.randint(0, 3)
    error = LogUnavailable("disk I/O error")
    world.kernel.faults.fail(COMMIT, error, times=times, after=after)
    model.count("failing commits")
    return f"{times} commits will fail"


def crash_in_a_call(world: World, model: Model) -> str | None:
    """Let the process die at one of its next calls, commits among them."""
    ahead, when = world.dice.randint(1, 60), world.dice.choice(SIDES)
    faults = world.kernel.faults
    faults.crash_at_call(faults.calls + ahead, when=when)
    model.count("crash at a call")
    return f"the process will die {when} call {ahead} from now"


def crash_in_a_commit(world: World, model: Model) -> str | None:
    """Let the process die right before or right after one of its next commits."""
    after, when = world.dice.randint(0, 4), world.dice.choice(SIDES)
    world.kernel.faults.crash_in(COMMIT, after=after, when=when)
    model.count("crash at a commit")
    return f"the process will die {when} commit {after + 1} from now"


def restart(world: World, model: Model) -> str | None:
    """End the reconciler between two passes, and start the next one."""
    model.count("restart")
    world.restart()
    return "the reconciler is killed and started again"


def reboot(world: World, model: Model) -> str | None:
    """Reboot the host; sometimes its file systems get other numbers."""
    renumber = world.heads() and world.heads()
    model.count("reboot")
    world.kernel.reboot(renumber=renumber)
    _started_again(world, model)
    return "the host reboots" + (", and file systems are renumbered" if renumber else "")


def cut_the_power(world: World, model: Model) -> str | None:
    """Cut the power: what was not flushed is gone."""
    model.count("power cut")
    world.kernel.reboot(lose_unsynced=True)
    _started_again(world, model)
    return "the power is cut"


def _started_again(world: World, model: Model) -> None:
    model.rebooted()
    world.restart()


def fill_up(world: World, model: Model) -> str | None:
    """Let the file system of the CoW files be full for a while."""
    left = Bytes(world.dice.choice((0, 8192, 2**20)))
    free = world.kernel.host.tree.get(ROOT).fs
    used = Bytes(free.used * 4096)
    world.kernel.set_capacity(ROOT, used + left)

    def heal() -> str:
        world.kernel.set_capacity(ROOT, ROOM)
        return "there is room again"

    explains = frozenset({"no-space", "enospc", "eio"})
    model.add(Breakage(what="full file system", heal=heal, explains=explains))
    return f"the file system has {left.count} bytes left"


def let_udev_look(world: World, model: Model) -> str | None:
    """Let udev hold each device for a while after it has changed, and make links itself."""
    host = world.kernel.host
    host.udev_hold_s = world.dice.choice((0.5, 3.0))
    host.udev_links = world.heads()

    def heal() -> str:
        host.udev_hold_s, host.udev_links = 0.0, False
        return "udev looks at nothing any more"

    explains = frozenset({"ebusy", "in-use"})
    model.add(Breakage(what="udev holds devices", heal=heal, explains=explains))
    return f"udev holds each device for {host.udev_hold_s} s"


def set_the_clock(world: World, model: Model) -> str | None:
    """Set the wall clock, an hour either way."""
    delta_s = world.dice.choice((-3600.0, 3600.0))
    model.count("clock set")
    world.clock.step_wall_s(delta_s)
    return f"the clock is set by {delta_s:+.0f} s"

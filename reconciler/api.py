"""The Python API: open a root, say what should be, wait until it is, read what happened.

    from reconciler import Byre

    with Byre("/var/lib/byre") as byre:
        byre.ensure("sb-1", base="/srv/images/ubuntu.ext4")
        [disk] = byre.wait(["sb-1"], timeout_s=30)
        print(disk.record.device, [event.type for event in byre.history("sb-1")])

The command line is made of this and adds nothing but words. A running reconciler on the same root
does the work; without one, `wait` takes the root's lock and does it itself meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import attrs

from reconciler import observe, stateroot, thishost, wishes
from reconciler.allowance import Allowance
from reconciler.bases import BaseLoops
from reconciler.clock import Clock, SystemClock
from reconciler.config import Settings
from reconciler.declare import Declared, Declarer
from reconciler.drivers.port import View
from reconciler.kernel.port import Kernel
from reconciler.lock import RootLock
from reconciler.outcome import Waited
from reconciler.reconcile import FindRecord, Reconciler
from reconciler.requester import this_process
from reconciler.root import Root
from reconciler.specs import Sourced
from reconciler.waiting import Waiting
from reconciler.watch.follow import LogFollower
from statemachine import history
from statemachine.errors import NoSuchDisk
from statemachine.eventlog import EventLog
from statemachine.events import Event
from statemachine.lifetime import OnExpiry
from statemachine.machine import Desired, Trigger
from statemachine.record import Record
from statemachine.reserve import RESERVE_BYTES
from statemachine.spec import BUSY_TIMEOUT_S, DriverChoice, OnBusy
from statemachine.specreader import given_of, parse, parse_lifetime
from statemachine.units import Bytes

if TYPE_CHECKING:
    from reconciler.forking import Forked
    from reconciler.points import Checkpointed, Keeper
    from reconciler.source import Sources, WhenLive


class Byre:
    """An open root. Close it, or use it as a context manager.

    Args:
        root: the state root; by default BYRE_ROOT, /var/lib/byre as root, the XDG folder else.
        kernel: what is changed; by default this host's.
        settings: bounds and delays of the reconciling done here; by default the root's own.
        read_only: only questions; the root must exist.
        clock: for delays and deadlines.
        reserve_bytes: how much room is kept beside the log for when there is none; 0 for none.

    Raises:
        LogUnavailable, LogDamaged, RefusedError: see `statemachine.eventlog.EventLog`.
        UnsafePath: another user can write to the root; see `reconciler.stateroot`.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        *,
        kernel: Kernel | None = None,
        settings: Settings | None = None,
        read_only: bool = False,
        clock: Clock | None = None,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self.root = Root(root) if root else Root.from_environment(os.environ, uid=os.getuid())
        self.kernel = kernel or thishost.kernel()
        self.clock = clock or SystemClock()
        boot_id = self.kernel.boot_id()
        if not read_only:
            stateroot.secure(self.root)
        self.log = EventLog(
            self.root.log,
            boot_id=boot_id,
            read_only=read_only,
            clock_ns=self.clock.now_ns,
            reserve_bytes=reserve_bytes,
        )
        self.settings = settings or Settings.read(self.root.config)
        self.allowance = Allowance(self.settings.limits, self.kernel, self.root.cows)
        """What the limits of the root leave; to be measured before disks are begun."""
        self.log.admit = self.allowance.admit
        self.lock = RootLock(self.root.lock)
        self._followers: list[LogFollower] = []
        """Those that nobody uses just now."""

    def close(self) -> None:
        """Close the log and give the lock back; idempotent."""
        self.lock.release()
        while self._followers:
            self._followers.pop().close()
        self.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- saying what should be ---------------------------------------------------------------

    def ensure(
        self,
        name: str,
        *,
        base: Path | str,
        state: Desired = Desired.LIVE,
        link: Path | str | None = None,
        jail: Mapping[str, object] | None = None,
        driver: DriverChoice = DriverChoice.AUTO,
        size: int | str | None = None,
        cow_size: int | str | None = None,
        cow_max: int | str | None = None,
        chunk_size: int | str | None = None,
        persistent: bool = True,
        direct_io: bool = False,
        on_busy: OnBusy = OnBusy.WAIT,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        expires_at: str | datetime | None = None,
        ttl: float | str | None = None,
        on_expiry: OnExpiry | None = None,
        idle_pause: float | str | None = None,
        reason: str = "",
        on_behalf_of: str = "",
    ) -> Declared:
        """Declare one disk; idempotent. See `Declarer.apply` for what is raised."""
        table: dict[str, object] = {"name": name, "base": str(base), "state": str(state)}
        table |= {"driver": str(driver), "on_busy": str(on_busy), "busy_timeout_s": busy_timeout_s}
        table |= {"persistent": persistent, "direct_io": direct_io}
        given: dict[str, object] = {"link": link and str(link), "size": size, "jail": jail}
        given |= {"cow_size": cow_size, "cow_max": cow_max, "expires_at": expires_at, "ttl": ttl}
        given |= {"chunk_size": chunk_size, "idle_pause": idle_pause, "on_expiry": on_expiry}
        [spec] = parse({"disk": [table | given_of(given)]}, source="the call", folder=Path.cwd())
        wanted = [Sourced("the call", spec)]
        return self.apply(wanted, reason=reason, on_behalf_of=on_behalf_of, anew=True)[0]

    def apply(
        self,
        wanted: Sequence[Sourced],
        *,
        prune: bool = False,
        reason: str = "",
        on_behalf_of: str = "",
        anew: bool = False,
    ) -> list[Declared]:
        """Declare a checked set of specs, all or none; see `Declarer`."""
        self.allowance.measure()
        return self._declarer(reason, on_behalf_of, anew=anew).apply(wanted, prune=prune)

    def command(
        self, names: Sequence[str], trigger: Trigger, *, reason: str = "", on_behalf_of: str = ""
    ) -> list[Declared]:
        """Declare what `pause`, `restore` or `remove` ask for; see `Declarer.command`."""
        return self._declarer(reason, on_behalf_of).command(names, trigger)

    def grow(
        self,
        name: str,
        *,
        size: Bytes | None = None,
        cow_max: Bytes | None = None,
        reason: str = "",
        on_behalf_of: str = "",
    ) -> list[Declared]:
        """Declare that a disk is larger from now on; see `wishes.grow`."""
        declarer = self._declarer(reason, on_behalf_of)
        return wishes.grow(declarer, name, size=size, cow_max=cow_max)

    def sparsify(
        self, names: Sequence[str], *, reason: str = "", on_behalf_of: str = ""
    ) -> list[Declared]:
        """Have the CoW files of paused disks made smaller; see `wishes.sparsify`."""
        return wishes.sparsify(self._declarer(reason, on_behalf_of), names)

    def hand_over(
        self, new: str, old: str, *, reason: str = "", on_behalf_of: str = ""
    ) -> list[Declared]:
        """Declare that a disk's link is another's from now on; see `wishes.hand_over`."""
        return wishes.hand_over(self._declarer(reason, on_behalf_of), new, old)

    def retry(
        self, names: Sequence[str], *, reason: str = "", on_behalf_of: str = ""
    ) -> list[Declared]:
        """Have failing, stalled or faulted disks tried again; see `Declarer.retry`."""
        return self._declarer(reason, on_behalf_of).retry(names)

    def fork(
        self,
        source: str,
        names: Sequence[str],
        *,
        state: Desired = Desired.LIVE,
        when_live: WhenLive | str = "suspend",
        reason: str = "",
        on_behalf_of: str = "",
    ) -> Forked:
        """Make disks of a paused or live disk, all or none; see `Forker.fork`."""
        from reconciler.forking import Forker  # noqa: PLC0415 - not for those who read the log
        from reconciler.source import WhenLive  # noqa: PLC0415

        self.allowance.measure()
        forker = Forker(
            self.log,
            self.root,
            self.settings,
            self.sources(),
            reason=reason,
            on_behalf_of=on_behalf_of,
        )
        return forker.fork(source, names, state=state, when_live=WhenLive(when_live))

    def checkpoint(
        self,
        name: str,
        point: str = "",
        *,
        keep: int | None = None,
        when_live: WhenLive | str = "suspend",
        reason: str = "",
        on_behalf_of: str = "",
    ) -> Checkpointed:
        """Keep a disk as it is now, under the name of a point; see `Keeper.checkpoint`."""
        from reconciler.source import WhenLive  # noqa: PLC0415 - not for those who read the log

        keeper = self._keeper(reason, on_behalf_of)
        return keeper.checkpoint(name, point, keep=keep, when_live=WhenLive(when_live))

    def drop_points(
        self, name: str, points: Sequence[str], *, reason: str = "", on_behalf_of: str = ""
    ) -> tuple[str, ...]:
        """Let go of points of a disk, all or none; see `Keeper.drop`."""
        return self._keeper(reason, on_behalf_of).drop(name, points)

    def go_back(
        self, name: str, point: str, *, reason: str = "", on_behalf_of: str = ""
    ) -> Declared:
        """Ask for a disk to go back to a point and be live; see `Keeper.go_back`."""
        self._keeper(reason, on_behalf_of).go_back(name, point)
        return Declared(name=name, changed=True)

    def _keeper(self, reason: str, on_behalf_of: str) -> Keeper:
        from reconciler.points import Keeper  # noqa: PLC0415 - not for those who read the log

        return Keeper(self.log, self.root, self.sources(), reason=reason, on_behalf_of=on_behalf_of)

    def extend(
        self,
        names: Sequence[str],
        *,
        ttl: float | str | None = None,
        expires_at: str | datetime | None = None,
        reason: str = "",
        on_behalf_of: str = "",
    ) -> list[Declared]:
        """Give disks another end, or with neither of the two none; see `Declarer.extend`."""
        table = {"ttl": ttl, "expires_at": expires_at}
        until = parse_lifetime(given_of(table), source="the call")
        return self._declarer(reason, on_behalf_of).extend(names, until)

    def _declarer(self, reason: str, on_behalf_of: str, *, anew: bool = False) -> Declarer:
        return Declarer(
            self.log,
            self.kernel,
            by=this_process(),
            device_prefix=self.settings.device_prefix,
            link_roots=self.settings.link_roots,
            reason=reason,
            on_behalf_of=on_behalf_of,
            anew=anew,
        )

    # --- asking ------------------------------------------------------------------------------

    def get(self, name: str) -> Record:
        """Return one disk's record; raises NoSuchDisk."""
        record = self.log.record(name)
        if record is None:
            raise NoSuchDisk(name)
        return record

    def history(self, name: str) -> list[Event]:
        """Return the events of one disk, oldest first."""
        return list(history.search(self.log, history.Question(disk=name)))

    def look(self, record: Record) -> tuple[View, observe.Choice]:
        """Look at a disk in the kernel, as a pass would; changes nothing."""
        loops = BaseLoops(self.kernel, self.log.root_id)
        return observe.look(self.kernel, loops, self.root, record, self.settings)

    def sources(self) -> Sources:
        """Return what opens this root's disks for reading their content."""
        from reconciler.source import Sources  # noqa: PLC0415 - not for those who read the log

        return Sources(
            kernel=self.kernel,
            root=self.root,
            clock=self.clock,
            watermarks=self.settings.watermarks,
            boot_id=self.log.boot_id,
        )

    def reconciler(self, *, known: FindRecord | None = None) -> Reconciler:
        """Return a reconciler for this root, ready to work; the lock must be held.

        Args:
            known: the records that a caller keeps who is woken by watchers and runs it for good;
                without one, what blocks is looked at more often, and what was done at once.
        """
        assert self.lock.is_held, "only the holder of the root's lock may reconcile"
        settings = self.settings
        if known is None:
            settings = attrs.evolve(settings, blocked_poll_cap_s=settings.blocked_poll_s)
        reconciler = Reconciler(
            self.log,
            self.kernel,
            self.root,
            settings=settings,
            clock=self.clock,
            random=random.random,
            known=known,
        )
        reconciler.begin()
        return reconciler

    @contextlib.contextmanager
    def following(self) -> Iterator[LogFollower]:
        """Have a follower of the log for the length of a `with` block; safe for several threads.

        It is kept for the next one: to end an inotify instance takes the kernel some ms. Its
        first wait may tell of what happened before.
        """
        try:
            follower = self._followers.pop()
        except IndexError:
            follower = LogFollower(self.log.path)
        try:
            yield follower
        finally:
            self._followers.append(follower)

    # --- waiting -----------------------------------------------------------------------------

    def wait(self, names: Sequence[str], *, timeout_s: float) -> list[Waited]:
        """Wait until disks are what is desired of them, or failed for good, or time is over.

        Whoever holds the root's lock does the work; while nobody does, this process does, for
        these disks only.

        Args:
            names: declared disks.
            timeout_s: seconds.

        Returns:
            One answer for each name, in their order.

        Raises:
            NoSuchDisk: one was never declared.
        """
        return Waiting(self, list(dict.fromkeys(names)), timeout_s).run()

    def reconcile_once(self, *, timeout_s: float) -> list[Waited]:
        """Look at every disk, and work until each is there, failed for good, or time is over.

        Args:
            timeout_s: seconds.

        Returns:
            One answer for each disk that exists or should.

        Raises:
            RootBusy: another reconciler has this root.
            LogDamaged: nothing was changed.
        """
        self.lock.take_over(self.clock, stays=False)
        try:
            history.prove(self.log)
            reconciler = self.reconciler()
            return Waiting(self, list(self.log.names_in_use()), timeout_s).work(reconciler)
        finally:
            self.lock.release()

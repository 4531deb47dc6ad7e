"""`byre demo`: the life of three disks, on this host, by the real API and a running reconciler.

Everything it makes lies in a temporary folder of its own or carries a device prefix of its own,
and goes again, however the demonstration ends. Each step checks what it claims; the first one
that does not hold ends it with `DemoFailed`.
May be imported by cli and tests.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TextIO

import attrs
import structlog

from reconciler.api import Byre
from reconciler.config import Settings
from reconciler.daemon import Daemon
from reconciler.demotools import DemoFailed, Writer, digest, dm_names, leftovers, make_base, unmount
from reconciler.kernel.linux import LinuxKernel
from reconciler.kernel.port import Capabilities
from reconciler.logs import LogFormat, configure
from reconciler.outcome import Waited
from reconciler.watch.dmevents import DmEventWatcher
from reconciler.watch.folders import FolderWatcher, Place
from reconciler.watch.log import LogWatcher
from reconciler.watch.uevents import UeventWatcher
from statemachine import history
from statemachine.errors import ByreError, TransientError
from statemachine.events import Event, EventType
from statemachine.machine import Trigger
from statemachine.names import DmUuid
from statemachine.record import Record
from statemachine.spec import DriverChoice

DISKS: Final = ("demo-1", "demo-2", "demo-3")
STEP_S: Final = 60.0
"""How long each step may take; on an ordinary host it is well under a second."""
HEAL_S: Final = 60.0
POLL_S: Final = 0.01
RESYNC_S: Final = 5.0


class Teller:
    """How the demonstration speaks: a line for each step, and the history as a table."""

    def step(self, text: str) -> None:
        """Say what was done, and that it held."""

    def detail(self, text: str) -> None:
        """Say more about it."""

    def table(self, events: Sequence[Event]) -> None:
        """Show a disk's history."""


@attrs.frozen(kw_only=True)
class Options:
    """How to demonstrate."""

    driver: DriverChoice = DriverChoice.AUTO
    without_loops: bool = False
    """As if this process might make no loop devices: disks are plain files."""
    keep: bool = False
    """Keep the folder with its log; the disks are removed all the same."""


class _WithoutLoops(LinuxKernel):
    """This host, had it neither loop devices nor device-mapper."""

    def capabilities(self) -> Capabilities:
        """Say that they must not be used."""
        reason = "left out on request (--without-loops)"
        return Capabilities(dm=reason, loop=reason)


def demonstrate(folder: Path, teller: Teller, options: Options) -> None:
    """Run the demonstration.

    Args:
        folder: a new one; removed at the end unless `options.keep`.
        teller: is told each step.
        options: how.

    Raises:
        DemoFailed: a check did not hold, or a program is missing.
        ByreError: byre itself failed.
    """
    kernel = _WithoutLoops() if options.without_loops else LinuxKernel()
    demo = _Demo(folder.resolve(), teller, options, kernel)
    try:
        demo.run()
    finally:
        try:
            demo.clean_up()
        finally:
            if not options.keep:
                shutil.rmtree(folder, ignore_errors=True)


class _Demo:
    def __init__(self, folder: Path, teller: Teller, options: Options, kernel: LinuxKernel) -> None:
        self._folder = folder
        self._say = teller
        self._options = options
        self._kernel = kernel
        prefix = f"byre-demo-{secrets.token_hex(3)}-"
        self._settings = Settings(device_prefix=prefix, resync_s=RESYNC_S, backoff_cap_s=1.0)
        self._base = folder / "base.ext4"
        self._writer = Writer(folder)
        self._texts = {name: f"{name}: {secrets.token_hex(16)}\n" for name in DISKS}

    def run(self) -> None:
        """Go through the steps."""
        make_base(self._base)
        before = digest(self._base)
        self._say.step(f"made a base image with a real ext4 file system: {self._base}")
        with self._open() as byre, self._reconciler(byre):
            self._bring_live(byre)
            self._write(byre)
            self._pause_and_restore(byre)
            self._take_away(byre)
            self._check(digest(self._base) == before, "the base was changed")
            self._say.step("the base image is what it was: every write went to a disk's own file")
            self._tell_history(byre)
            self._remove(byre)
        left = self._left()
        self._check(not left, f"still there: {', '.join(left)}")
        self._say.step(
            "looked for what is left: 0 dm devices, 0 loop devices, 0 disk files, 0 links"
        )

    # --- the steps ---------------------------------------------------------------------------

    def _bring_live(self, byre: Byre) -> None:
        began = time.monotonic()
        for name in DISKS:
            link = self._folder / "links" / name
            byre.ensure(
                name, base=self._base, link=link, driver=self._options.driver, reason="byre demo"
            )
        self._wait(byre)
        took_ms = (time.monotonic() - began) * 1000
        first = byre.get(DISKS[0])
        self._say.step(f"declared three disks; all live after {took_ms:.0f} ms")
        why = first.driver_reason or "the kernel has what it needs"
        self._say.detail(f"driver {first.driver}, because: {why}")
        self._say.detail(_BUILT.get((first.driver, _is_file(first)), ""))
        for name in DISKS:
            record = byre.get(name)
            self._check(Path(record.link).exists(), f"the link of {name} leads nowhere")
            self._say.detail(f"{name} is {record.device}; its link {record.link} leads there")

    def _write(self, byre: Byre) -> None:
        for name in DISKS:
            self._writer.write(byre.get(name).device, self._texts[name])
        self._compare(byre, "after writing")
        how = "a mount" if self._writer.by_mount else "debugfs, as mounting is not permitted"
        self._say.step(f"wrote another text into each disk (by {how}) and read it back")

    def _pause_and_restore(self, byre: Byre) -> None:
        byre.command(DISKS, Trigger.PAUSE, reason="byre demo")
        self._wait(byre)
        kept = [byre.get(name).cow_path for name in DISKS]
        self._check(all(Path(path).exists() for path in kept), "a paused disk lost its file")
        left = self._left(besides=kept)
        self._check(not left, f"paused disks have {', '.join(left)}")
        self._say.step("paused them: devices and links are gone, the files with the data stay")
        byre.command(DISKS, Trigger.RESTORE, reason="byre demo")
        self._wait(byre)
        self._compare(byre, "after the restore")
        self._say.step("restored them: the texts are there, byte for byte")

    def _take_away(self, byre: Byre) -> None:
        victim = byre.get(DISKS[1])
        seen = byre.log.last_seq()
        began = time.monotonic()
        what = self._behind_byres_back(victim)
        self._say.step(f"took {what} away behind byre's back, as an operator's slip would")
        drift = self._await_drift(byre, victim.name, seen)
        self._wait(byre)
        took_ms = (time.monotonic() - began) * 1000
        self._compare(byre, "after the healing")
        found = "; ".join(drift.data.get("differences", ()))
        self._say.step(f"the reconciler saw it and healed it within {took_ms:.0f} ms")
        self._say.detail(f"logged as drift before it was repaired: {found}")

    def _tell_history(self, byre: Byre) -> None:
        self._say.step(f"everything that happened to {DISKS[1]} is in the log:")
        self._say.table(byre.history(DISKS[1]))
        chain = history.verify(byre.log)
        differences = [str(each) for each in history.compare(byre.log)]
        self._check(not differences, "; ".join(differences))
        self._say.step(
            f"checked the log: {chain.events} events, each with the hash of the one before it "
            f"(head {chain.hash[:12]}…), and they alone give the same records"
        )

    def _remove(self, byre: Byre) -> None:
        byre.command(DISKS, Trigger.REMOVE, reason="byre demo")
        self._wait(byre)
        self._say.step("removed all three")

    # --- behind byre's back ------------------------------------------------------------------

    def _behind_byres_back(self, victim: Record) -> str:
        """Take a disk's device away; where it has none, its link."""
        if victim.driver == DriverChoice.DM_SNAPSHOT:
            uuid = str(DmUuid(victim.id, victim.generation))
            _insist(lambda: self._kernel.dm_remove(victim.device_name, uuid))
            return f"dm device {victim.device_name}"
        loop = self._kernel.loop(victim.cow_loop) if victim.cow_loop is not None else None
        if loop is not None:
            _insist(lambda: self._kernel.loop_detach(loop))
            return f"loop device {loop.path}"
        Path(victim.link).unlink()
        return f"link {victim.link}"

    def _await_drift(self, byre: Byre, name: str, after: int) -> Event:
        """Wait until the reconciler has noticed."""
        question = history.Question(disk=name, type=EventType.DRIFT_DETECTED, after=after)
        give_up = time.monotonic() + HEAL_S
        while time.monotonic() < give_up:
            found = history.ask(byre.log, question, limit=1)
            if found:
                return found[0]
            time.sleep(POLL_S)
        raise DemoFailed(f"nobody noticed within {HEAL_S:g} s")

    # --- checks ------------------------------------------------------------------------------

    def _compare(self, byre: Byre, when: str) -> None:
        for name in DISKS:
            found = self._writer.read(byre.get(name).device)
            self._check(
                found == self._texts[name],
                f"{when}, {name} holds {found!r}, not {self._texts[name]!r}",
            )

    def _left(self, *, besides: Sequence[str] = ()) -> list[str]:
        """Name what is there and should not be, once udev had the time to let go of it."""
        give_up = time.monotonic() + HEAL_S
        while True:
            found = leftovers(self._kernel, self._folder, self._settings.device_prefix)
            left = [each for each in found if each not in besides]
            if not left or time.monotonic() > give_up:
                return left
            time.sleep(POLL_S)

    def _check(self, holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
        if not holds:
            hint = f"what the reconciler said is in {self._folder}/reconciler.log (with --keep)"
            raise DemoFailed(otherwise, hint=hint)

    def _wait(self, byre: Byre) -> None:
        missing = [each for each in byre.wait(DISKS, timeout_s=STEP_S) if not each.is_there]
        if missing:
            raise DemoFailed(_words(missing), hint=missing[0].hint)

    # --- the reconciler ----------------------------------------------------------------------

    def _open(self) -> Byre:
        return Byre(self._folder / "root", kernel=self._kernel, settings=self._settings)

    @contextlib.contextmanager
    def _reconciler(self, byre: Byre) -> Iterator[None]:
        """Have a reconciler at work on the root for the length of a `with` block."""
        watchers = (
            LogWatcher(byre.root.log, byre.clock),
            FolderWatcher([Place.mapper()], byre.clock),
            UeventWatcher(),
            DmEventWatcher(),
        )
        with (
            (self._folder / "reconciler.log").open("a") as stream,
            _logging_to(stream),
            self._open() as its,
        ):
            daemon = Daemon(its, watchers=watchers)
            thread = threading.Thread(target=daemon.run, name="byre-demo", daemon=True)
            thread.start()
            try:
                self._await_lock(its, thread)
                self._say.step("started a reconciler in the background, as `byre run` would be")
                yield
            finally:
                daemon.stop("the demonstration is over")
                thread.join(STEP_S)

    def _await_lock(self, its: Byre, thread: threading.Thread) -> None:
        """Wait until the reconciler holds the root, so that it does the work and not we."""
        give_up = time.monotonic() + STEP_S
        while not its.lock.is_held:
            if time.monotonic() > give_up or not thread.is_alive():
                raise DemoFailed("the reconciler did not start")
            time.sleep(POLL_S)

    # --- cleaning up -------------------------------------------------------------------------

    def clean_up(self) -> None:
        """Remove all that an early end left; after a whole run there is nothing to do."""
        unmount(self._folder)
        prefix = self._settings.device_prefix
        if not leftovers(self._kernel, self._folder, prefix):
            return
        with contextlib.suppress(ByreError), self._open() as byre:
            names = [r.name for r in byre.log.records() if r.desired != "removed"]
            byre.command(names, Trigger.REMOVE, reason="byre demo was ended early")
            byre.wait([record.name for record in byre.log.records()], timeout_s=STEP_S)
        self._force(prefix)

    def _force(self, prefix: str) -> None:
        """Take away what byre could not, by what is certainly of this demonstration alone."""
        for line in dm_names(self._kernel):
            if line.name.startswith(prefix):
                with contextlib.suppress(ByreError):
                    self._kernel.dm_remove(line.name, line.uuid)
        for loop in self._kernel.loops():
            if loop.backing_path.startswith(f"{self._folder}/"):
                with contextlib.suppress(ByreError):
                    self._kernel.loop_detach(loop)


_BUILT: Final = {
    ("dm-snapshot", False): "each is a snapshot of the one base over a sparse file of its own",
    ("clone", False): "each is a copy of the base (blocks shared if possible) on a loop device",
    ("clone", True): "each is a copy of the base (blocks shared if possible) as a plain file",
}


def _is_file(record: Record) -> bool:
    return record.device == record.cow_path


def _words(missing: Sequence[Waited]) -> str:
    return "; ".join(f"{each.record.name}: {each.message}" for each in missing)


def _insist(change: Callable[[], bool]) -> None:
    """Make a change, again while udev has the device open, for HEAL_S at most."""
    give_up = time.monotonic() + HEAL_S
    while True:
        try:
            change()
        except TransientError:
            if time.monotonic() > give_up:
                raise
            time.sleep(POLL_S)
        else:
            return


@contextlib.contextmanager
def _logging_to(stream: TextIO) -> Iterator[None]:
    before = structlog.get_config()
    configure(LogFormat.TEXT, stream=stream)
    try:
        yield
    finally:
        structlog.configure(**before)

"""A root on a simulated kernel, ready for a test: declare, settle, restart, and look for leaks."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from reconciler.api import Byre
from reconciler.clock import FakeClock
from reconciler.config import Settings
from reconciler.kernel.sim import SimKernel
from reconciler.outcome import is_there
from reconciler.reconcile import FindRecord, Reconciler
from reconciler.workers import AFTER_ERROR_S
from statemachine import history
from statemachine.errors import ActionError
from statemachine.eventlog import EventLog
from statemachine.events import Event
from statemachine.machine import LIVE, Desired, State, Trigger
from statemachine.names import LOG_NAME, DmUuid, base_marker, cow_marker, origin_uuid
from statemachine.observed import LinkKind
from statemachine.record import Record
from statemachine.spec import DriverChoice

MIB = 2**20
BASE = Path("/srv/base.ext4")
LINK = Path("/srv/vm/sb-1/rootfs.link")
JAIL: Mapping[str, object] = {
    "root": "/srv/jailer/sb-1/root",
    "node": "dev/rootfs",
    "uid": 1001,
    "gid": 1002,
}
NODE = Path("/srv/jailer/sb-1/root/dev/rootfs")
ROUNDS_MAX = 200
HOLDS_BASE = LIVE | {State.ATTACHED}


@functools.cache
def new_log() -> bytes:
    """Return the file of a log without events: made once, as making one takes a while."""
    with tempfile.TemporaryDirectory() as folder:
        EventLog(Path(folder) / LOG_NAME).close()
        return (Path(folder) / LOG_NAME).read_bytes()


class Stage:
    """One root on one simulated host; `restart` is what a new process sees."""

    def __init__(self, folder: Path, *, kernel: SimKernel | None = None) -> None:
        self.clock = FakeClock(autojump=True)
        self.kernel = kernel or SimKernel(self.clock)
        if self.kernel.identify(BASE) is None:
            self.kernel.make_file(BASE, MIB, b"base")
        self.root = folder / "root"
        self.root.mkdir(mode=0o700, exist_ok=True)
        if not (self.root / LOG_NAME).exists():
            (self.root / LOG_NAME).write_bytes(new_log())
        self.settings = Settings(attempts_max=5)
        self.byre = self._open()
        self.reconciler = self.new_reconciler()

    def _open(self) -> Byre:
        return Byre(self.root, kernel=self.kernel, settings=self.settings, clock=self.clock)

    def new_reconciler(self, known: FindRecord = lambda _name: None) -> Reconciler:
        """Return a reconciler of this root as a watched process has it, with these records."""
        made = Reconciler(
            self.byre.log,
            self.kernel,
            self.byre.root,
            settings=self.settings,
            clock=self.clock,
            random=lambda: 0.5,
            known=known,
        )
        made.begin()
        return made

    def close(self) -> None:
        """Close the log."""
        self.byre.close()

    def restart(self) -> None:
        """Go on as a new process on the same root."""
        self.byre.close()
        self.kernel.faults.revive()
        self.byre = self._open()
        self.reconciler = self.new_reconciler()

    # --- saying and doing ---------------------------------------------------------------------

    def declare(
        self,
        name: str = "sb-1",
        state: Desired = Desired.LIVE,
        *,
        link: Path | None = None,
        jail: Mapping[str, object] | None = None,
        base: Path = BASE,
        driver: DriverChoice = DriverChoice.AUTO,
    ) -> None:
        """Declare one disk."""
        self.byre.ensure(name, base=base, state=state, link=link, jail=jail, driver=driver)

    def live(
        self,
        name: str = "sb-1",
        *,
        link: Path | None = None,
        jail: Mapping[str, object] | None = None,
        driver: DriverChoice = DriverChoice.AUTO,
    ) -> Record:
        """Declare one disk live and bring it there."""
        self.declare(name, link=link, jail=jail, driver=driver)
        self.settle()
        return self.record(name)

    def command(self, trigger: Trigger, name: str = "sb-1") -> Record:
        """Pause, restore or remove a disk and bring it there."""
        self.byre.command([name], trigger)
        self.settle()
        return self.record(name)

    def once(self, name: str = "sb-1") -> Record:
        """Make one pass."""
        self.reconciler.reconcile(name)
        return self.record(name)

    def settle(self) -> int:
        """Make passes until nothing more is due; time goes on to what is. Returns the rounds."""
        for count in range(1, ROUNDS_MAX):
            names = [record.name for record in self.byre.log.records()]
            waits = [self._pass(name) for name in names]
            due = [wait_s for wait_s in waits if wait_s is not None]
            if not due:
                return count
            self.clock.advance_s(max(min(due), 0.001))
        raise AssertionError(f"not at rest after {ROUNDS_MAX} rounds: {self.states()}")

    def _pass(self, name: str) -> float | None:
        try:
            return self.reconciler.reconcile(name).again_s
        except ActionError:  # looking at it failed; the barrier around a real pass waits, too
            return AFTER_ERROR_S

    # --- asking -------------------------------------------------------------------------------

    def record(self, name: str = "sb-1") -> Record:
        """Return the record of a disk."""
        return self.byre.get(name)

    def states(self) -> dict[str, str]:
        """Return the state of each disk, with its failure if it has one."""
        return {
            record.name: record.state.value + (f" {record.failure}" if record.failure else "")
            for record in self.byre.log.records()
        }

    def events(self, name: str = "sb-1") -> list[Event]:
        """Return the events of a disk."""
        return self.byre.history(name)

    def types(self, name: str = "sb-1") -> list[str]:
        """Return what happened to a disk, in short: the types, transitions with their trigger."""
        return [
            event.type + (f" {event.data['trigger']}" if "trigger" in event.data else "")
            for event in self.events(name)
        ]

    def check(self) -> None:
        """Assert what must hold at rest: each disk there, chain intact, replay equal, no leak."""
        away = {r.name: self.states()[r.name] for r in self.byre.log.records() if not is_there(r)}
        assert away == {}, away
        self.check_log()
        left = leaks(self)
        assert left == [], left

    def check_log(self) -> None:
        """Assert that the chain is intact and that the records are what the events say."""
        history.verify(self.byre.log)
        assert list(history.compare(self.byre.log)) == []

    def check_quiet(self) -> None:
        """Assert that another pass changes nothing and writes nothing."""
        seq, points = self.byre.log.last_seq(), self.kernel.faults.points
        self.settle()
        assert (seq, points) == (self.byre.log.last_seq(), self.kernel.faults.points)


def leaks(stage: Stage) -> list[str]:
    """Return what is there and should not be, or should be and is not, by the records."""
    records = stage.byre.log.records()
    return [*_dm_leaks(stage, records), *_loop_leaks(stage, records), *_file_leaks(stage, records)]


def _dm_leaks(stage: Stage, records: list[Record]) -> Iterator[str]:
    wanted = {
        str(DmUuid(record.id, record.generation))
        for record in records
        if record.state in LIVE and record.driver == DriverChoice.DM_SNAPSHOT
    }
    wanted |= {
        origin_uuid(record.id, record.generation)
        for record in records
        if str(DmUuid(record.id, record.generation)) in wanted and record.size > record.base.size
    }
    found = {line.uuid for line in stage.kernel.dm_names() if line.uuid.startswith("BYRE-")}
    if wanted != found:
        yield f"dm devices: wanted {sorted(wanted)}, found {sorted(found)}"
    for name in stage.kernel.list_folder(Path("/dev/mapper")):
        if name.startswith("byre-") and stage.kernel.dm(name) is None:
            yield f"dangling node {name}"


def _loop_leaks(stage: Stage, records: list[Record]) -> Iterator[str]:
    holding = [r for r in records if r.state in HOLDS_BASE and _on_loop(stage, r)]
    wanted = sorted(cow_marker(record.id, record.generation) for record in holding)
    wanted += [
        base_marker(stage.byre.log.root_id)
        for _ in {r.base.inode for r in holding if r.driver == DriverChoice.DM_SNAPSHOT}
    ]
    found = sorted(loop.marker for loop in stage.kernel.loops() if loop.marker.startswith("BYRE-"))
    if sorted(wanted) != found:
        yield f"loops: wanted {sorted(wanted)}, found {found}"


def _on_loop(stage: Stage, record: Record) -> bool:
    return record.driver == DriverChoice.DM_SNAPSHOT or not stage.kernel.capabilities().loop


def _file_leaks(stage: Stage, records: list[Record]) -> Iterator[str]:
    kept = [r for r in records if r.state not in (State.ABSENT, State.REMOVED)]
    wanted = sorted(name for record in kept for name in _files_of(record))
    found = list(stage.kernel.list_folder(stage.byre.root.cows))
    if wanted != found:
        yield f"files: wanted {wanted}, found {found}"
    for record in records:
        yield from _place_leaks(stage, record)


def _files_of(record: Record) -> Iterator[str]:
    """Yield the names of a disk's own file, of its points, and of what waits to be its file."""
    yield Path(record.cow_path).name
    yield from (Path(point.path).name for point in record.points)
    if record.rewind is not None:
        yield Path(record.rewind.path).name


def _place_leaks(stage: Stage, record: Record) -> Iterator[str]:
    jail, link = record.wanted.jail, record.wanted.link
    if jail is not None:
        node = stage.kernel.look_at_node(jail)
        expected = (record.device_number, 1001, 1002, 0o600)
        if record.state in LIVE and (node.number, node.uid, node.gid, node.mode) != expected:
            yield f"node {jail.path} of {record.name}: {node}"
        if record.state not in LIVE and node.number:
            yield f"node {jail.path} of {record.name} is left: {node}"
    if link is not None:
        there = stage.kernel.read_link(link)
        ours = there.kind is LinkKind.SYMLINK and there.target == record.device
        if record.state in LIVE and not ours:
            yield f"link {link} of {record.name}: {there}"
        if record.state not in LIVE and there.target.startswith("/dev/mapper/byre-"):
            yield f"link {link} of {record.name} is left: {there}"

"""What one transition costs in *counts*: calls of the kernel, commits, bytes, processes.

Counts are the same on every machine, however busy, so they may fail where a time never may. They
are taken on the simulated kernel, by one thread, on a real log, and compared with `BOUNDS`: no more
than half above what they are today, and not one commit above. A regression that matters is a look
too many, a search through all loop devices, a commit for each action, a program started.

Each commit is one fsync (SQLite's WAL with synchronous=FULL). The calls of the port are questions
and changes; each of them is a few system calls on a real kernel. May be imported by cli and tests.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from reconciler.api import Byre
from reconciler.kernel.sim import SimKernel
from reconciler.known import Known
from reconciler.outcome import is_there
from reconciler.reconcile import Reconciler
from statemachine.machine import Desired, Trigger
from statemachine.units import Bytes

BASE: Final = Path("/srv/base.img")
_BASE_BYTES: Final = Bytes(1 << 20)
DISKS: Final = 3
"""So few that SQLite does not begin its WAL anew meanwhile, which would hide bytes."""


@attrs.frozen(kw_only=True)
class Counts:
    """What was counted for one transition, or for one look that finds nothing to do."""

    questions: int
    """Calls of the port that only look."""
    changes: int
    """Calls of the port that may change something."""
    commits: int
    """Of the reconciler; the declaration's is not among them."""
    events: int
    log_bytes: int
    """What the log's WAL grew by."""
    processes: int

    def over(self, bound: Counts) -> list[str]:
        """Name what is above a bound."""
        pairs = zip(attrs.asdict(self).items(), attrs.astuple(bound), strict=True)
        return [f"{value} {name}, at most {most}" for (name, value), most in pairs if value > most]


def _bound(questions: int, changes: int, commits: int, events: int, kib: int) -> Counts:
    return Counts(
        questions=questions,
        changes=changes,
        commits=commits,
        events=events,
        log_bytes=kib * 1024,
        processes=0,
    )


BOUNDS: Final[dict[str, Counts]] = {
    "create": _bound(21, 12, 3, 4, 90),
    "attach": _bound(13, 3, 2, 2, 48),
    "snapshot": _bound(28, 9, 2, 2, 60),
    "pause": _bound(20, 4, 2, 2, 60),
    "restore": _bound(24, 10, 2, 2, 48),
    "remove": _bound(20, 6, 2, 2, 60),
    "resync": _bound(16, 0, 0, 0, 0),
}
"""The most that each may cost: `create` is two transitions in one pass, `resync` a look at a disk
that is as it should be. What a running reconciler looks at a moment later is not among them."""


def count() -> dict[str, Counts]:
    """Count each transition on a throw-away root; the most of a few disks each."""
    made = tempfile.TemporaryDirectory(prefix="byre-bench-")
    with made as folder, _opened(Path(folder)) as byre, byre.lock:
        return _Counting(byre).run()


def regressions(counts: dict[str, Counts]) -> list[str]:
    """Name every count that is above its bound: "pause: 200 questions, at most 80"."""
    return [
        f"{name}: {over}" for name, bound in BOUNDS.items() for over in counts[name].over(bound)
    ]


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[Byre]:
    kernel = SimKernel()
    kernel.make_file(BASE, _BASE_BYTES, b"base")
    with Byre(folder / "root", kernel=kernel, reserve_bytes=0) as byre:
        yield byre


class _Counting:
    """One root; each transition is made for each disk, by this thread."""

    def __init__(self, byre: Byre) -> None:
        assert isinstance(byre.kernel, SimKernel), "only the simulated kernel counts its calls"
        self._byre = byre
        self._faults = byre.kernel.faults
        self._wal = byre.root.log.with_name(f"{byre.root.log.name}-wal")
        known = Known()  # as `byre run` has it
        byre.log.on_commit = lambda commit: known.update(commit.moved)
        self._reconciler: Reconciler = byre.reconciler(known=known.find)
        self._names = [f"sb-{number}" for number in range(DISKS)]
        self._created = [f"new-{number}" for number in range(DISKS)]

    def run(self) -> dict[str, Counts]:
        steps: dict[str, Callable[[str], object]] = {
            "attach": lambda name: self._ensure(name, Desired.ATTACHED),
            "snapshot": lambda name: self._ensure(name, Desired.LIVE),
            "resync": lambda _name: None,
            "pause": lambda name: self._byre.command([name], Trigger.PAUSE),
            "restore": lambda name: self._byre.command([name], Trigger.RESTORE),
            "remove": lambda name: self._byre.command([name], Trigger.REMOVE),
        }
        created = {
            "create": self._most(lambda name: self._ensure(name, Desired.LIVE), self._created)
        }
        return created | {step: self._most(how, self._names) for step, how in steps.items()}

    def _ensure(self, name: str, state: Desired) -> None:
        self._byre.ensure(name, base=BASE, state=state)

    def _most(self, declare: Callable[[str], object], names: Sequence[str]) -> Counts:
        """Declare something of every disk, then count each pass; returns the largest counts."""
        found = []
        for name in names:
            declare(name)
            found.append(self._pass(name))
        columns = zip(*map(attrs.astuple, found), strict=True)
        return Counts(**dict(zip(attrs.fields_dict(Counts), map(max, columns), strict=True)))

    def _pass(self, name: str) -> Counts:
        before, started = self._state(), len(_STARTS)
        with _watching_starts():
            self._reconciler.reconcile(name)
        assert is_there(self._byre.get(name)), f"{name} is not what was asked for"
        calls, points, commits, events, log_bytes = (
            after - was for after, was in zip(self._state(), before, strict=True)
        )
        return Counts(
            questions=calls - points,
            changes=points,
            commits=commits,
            events=events,
            log_bytes=log_bytes,
            processes=len(_STARTS) - started,
        )

    def _state(self) -> tuple[int, int, int, int, int]:
        log, faults = self._byre.log, self._faults
        size = self._wal.stat().st_size if self._wal.exists() else 0
        return faults.calls, faults.points, log.commits, log.last_seq(), size


# --- processes -----------------------------------------------------------------------------------

_STARTING: Final = frozenset(
    {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}
    | {"subprocess.Popen"}
)
"""What Python tells its auditors before it starts a program (docs.python.org, audit events)."""
_STARTS: Final[list[str]] = []
_HOOKS: Final[list[Callable[[str, tuple[object, ...]], None]]] = []
"""The one hook of this process, once it is there: it cannot be taken back."""


@contextlib.contextmanager
def _watching_starts() -> Iterator[None]:
    """Note every program that is started during a `with` block."""
    if not _HOOKS:
        _HOOKS.append(_note_start)
        sys.addaudithook(_note_start)
    _WATCHING.append(None)
    try:
        yield
    finally:
        _WATCHING.pop()


_WATCHING: Final[list[None]] = []


def _note_start(event: str, _arguments: tuple[object, ...]) -> None:
    if _WATCHING and event in _STARTING:
        _STARTS.append(event)

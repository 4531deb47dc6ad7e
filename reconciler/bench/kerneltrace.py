"""What the kernel itself says was started and read: its tracepoints, in an instance of our own.

No process can start and no block be read without the kernel's telling, so what is not here did not
happen. Needs root and tracefs; whoever else traces is not disturbed. May be imported by the package
and tests.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from reconciler.bench.results import BenchFailed

TRACEFS: Final = Path("/sys/kernel/tracing")
_EVENTS: Final = ("sched/sched_process_exec", "block/block_bio_queue")
_BUFFER_KIB: Final = 8192
_EXEC = re.compile(r" sched_process_exec: filename=(\S+) ")
_BIO = re.compile(r" block_bio_queue: (\d+),(\d+) (\S+) \d+ \+ (\d+) \[(.*)\]$")


@attrs.frozen(kw_only=True)
class Bio:
    """One request for a block device, as it came from above."""

    device: tuple[int, int]
    """Major and minor."""
    is_read: bool
    sectors: int
    task: str
    """The command of whoever asked."""


@attrs.frozen(kw_only=True)
class Traced:
    """What was traced."""

    programs: tuple[str, ...]
    """The path of each program that was started, in order."""
    bios: tuple[Bio, ...]


class Trace:
    """A trace that is going on; `read` as often as is wanted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> Traced:
        """Return what happened so far; raises BenchFailed when something was lost."""
        for stats in self._folder.glob("per_cpu/cpu*/stats"):
            lost = re.search(r"^overrun: (\d+)$", stats.read_text(encoding="ascii"), re.MULTILINE)
            if lost is None or int(lost[1]):
                raise BenchFailed("the kernel's trace overflowed", hint="measure fewer rounds")
        return parse((self._folder / "trace").read_text(encoding="utf-8", errors="replace"))


@contextlib.contextmanager
def tracing(tracefs: Path = TRACEFS) -> Iterator[Trace]:
    """Trace for the length of a `with` block; raises BenchFailed where that is not possible."""
    folder = tracefs / "instances" / f"byre-{secrets.token_hex(4)}"
    try:
        folder.mkdir()
    except OSError as error:
        hint = f"as root: `mount -t tracefs tracefs {tracefs}`"
        raise BenchFailed(f"cannot trace in {folder}: {error.strerror}", hint=hint) from error
    switches = [folder / "events" / event / "enable" for event in _EVENTS]
    try:
        (folder / "buffer_size_kb").write_text(str(_BUFFER_KIB), encoding="ascii")
        for switch in switches:
            switch.write_text("1", encoding="ascii")
        yield Trace(folder)
    finally:
        for switch in switches:
            switch.write_text("0", encoding="ascii")
        folder.rmdir()


def parse(text: str) -> Traced:
    """Read the lines of a trace; others than ours are passed over."""
    programs, bios = [], []
    for line in text.splitlines():
        if found := _EXEC.search(line):
            programs.append(found[1])
        elif found := _BIO.search(line):
            major, minor, kind, sectors, task = found.groups()
            device = (int(major), int(minor))
            bios.append(Bio(device=device, is_read="R" in kind, sectors=int(sectors), task=task))
    return Traced(programs=tuple(programs), bios=tuple(bios))

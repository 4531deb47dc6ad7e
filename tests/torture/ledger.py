"""What the guest told the host before its power was cut, a line of JSON each, and what follows.

The ledger lies on the host. A line is written before something is begun ("begin", "ask") and after
it was acknowledged ("flushed", "told"), so whatever the cut takes, the ledger knows what must be
there and what may be. A line that the cut broke off was never told.
May be imported by the torture tests.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

import attrs

from tests.torture.contents import Contents

_ANSWERS = frozenset({"boot", "told", "flushed", "found"})


def take_back(path: Path, *, after: int) -> None:
    """Take back the answers that a ledger was given past some bytes, as if they had come too late.

    What was begun or asked by then stays: it may have been done.
    """
    raw = path.read_bytes()
    kept = [line for line in raw[after:].split(b"\n") if not _is_answer(line)]
    path.write_bytes(raw[:after] + b"\n".join([b"", *kept, b""]))


def _is_answer(line: bytes) -> bool:
    try:
        return json.loads(line)["kind"] in _ANSWERS
    except ValueError:
        return True  # broken off, or empty


@attrs.define(eq=False)
class Ledger:
    """All that was told so far. `bases` gives the bytes of each base by its name."""

    path: Path
    bases: dict[str, bytes]
    boots: list[str] = attrs.field(factory=list, init=False)
    """The ids of the boots that came as far as to put load on the host, in their order."""
    told: list[tuple[int, str]] = attrs.field(factory=list, init=False)
    """(seq, hash) of the events that were acknowledged."""
    wanted: dict[str, tuple[str, ...]] = attrs.field(factory=dict, init=False)
    """What each disk may be desired to be: what was acknowledged last, and what was asked since."""
    stamp: int = attrs.field(default=0, init=False)
    writes: int = attrs.field(default=0, init=False)
    _contents: dict[tuple[str, int], Contents] = attrs.field(factory=dict, init=False)
    _descriptor: int = attrs.field(default=-1, init=False)

    @classmethod
    def read(cls, path: Path, bases: dict[str, bytes]) -> Self:
        """Return what a ledger says; one that is not there says nothing."""
        ledger = cls(path, bases)
        for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # broken off by a cut, or the empty end
            ledger._take(entry)
        return ledger

    def contents(self, disk: str, generation: int, base: str) -> Contents:
        """Return what a disk must hold."""
        key = (disk, generation)
        if key not in self._contents:
            self._contents[key] = Contents(disk, generation, self.bases[base])
        return self._contents[key]

    # --- telling -----------------------------------------------------------------------------

    def boot(self, boot_id: str) -> None:
        """Tell that this boot has checked everything, and goes on with load."""
        self._tell(kind="boot", boot_id=boot_id)

    def ask(self, disk: str, desired: str) -> None:
        """Tell that something is about to be asked of a disk."""
        self._tell(kind="ask", disk=disk, desired=desired)

    def acknowledge(self, disk: str, desired: str, seq: int, digest: str) -> None:
        """Tell that a command ended with 0, and which event says so."""
        self._tell(kind="told", disk=disk, desired=desired, seq=seq, hash=digest)

    def begin(self, contents: Contents, base: str, blocks: list[int]) -> int:
        """Tell that blocks are about to be written; returns the stamp to write."""
        stamp = self.stamp + 1
        self._of("begin", contents, base, blocks=blocks, stamp=stamp)
        return stamp

    def flushed(self, contents: Contents, base: str) -> None:
        """Tell that fsync said that all of it is there."""
        self._of("flushed", contents, base)

    def found(self, contents: Contents, base: str, stamps: dict[int, int]) -> None:
        """Tell what a check after a cut has found."""
        self._of("found", contents, base, stamps=sorted(stamps.items()))

    def _of(self, kind: str, contents: Contents, base: str, **more: object) -> None:
        where = {"disk": contents.disk, "generation": contents.generation, "base": base}
        self._tell(kind=kind, **where, **more)

    def _tell(self, **entry: object) -> None:
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o644)
            os.write(self._descriptor, b"\n")  # ends a line that a cut broke off
        os.write(self._descriptor, f"{json.dumps(entry)}\n".encode())
        self._take(entry)

    # --- what follows ------------------------------------------------------------------------

    def _take(self, entry: dict[str, Any]) -> None:
        kind = entry["kind"]
        if kind == "boot":
            self.boots.append(entry["boot_id"])
        elif kind == "ask":
            before = self.wanted.get(entry["disk"], ("",))
            self.wanted[entry["disk"]] = (*before, entry["desired"])
        elif kind == "told":
            self.wanted[entry["disk"]] = (entry["desired"],)
            self.told.append((entry["seq"], entry["hash"]))
        else:
            self._take_data(kind, entry)

    def _take_data(self, kind: str, entry: dict[str, Any]) -> None:
        contents = self.contents(entry["disk"], entry["generation"], entry["base"])
        if kind == "begin":
            self.stamp = entry["stamp"]
            self.writes += len(entry["blocks"])
            contents.begin(entry["blocks"], self.stamp)
        elif kind == "flushed":
            contents.flush()
        else:
            contents.settle(dict(entry["stamps"]))

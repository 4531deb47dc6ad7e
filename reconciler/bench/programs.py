"""Starting programs with as little overhead as there is: posix_spawn, no shell, one wait.

For the baselines, which are programs; byre itself starts none. May be imported by the package
only.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from reconciler.bench.results import BenchFailed

_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
_READ_BYTES: Final = 65536


def find(program: str) -> str | None:
    """Return the path of a program; None if it is not installed."""
    return shutil.which(program, path=_PATH)


def python(*arguments: str) -> tuple[str, ...]:
    """Return the command line of this very Python; `-P` keeps the current folder out of it."""
    return (sys.executable, "-P", *arguments)


def byre(*arguments: str | Path) -> tuple[str, ...]:
    """Return the command line of byre, as its console script would start it."""
    return python("-c", "from reconciler.cli import main; main()", *map(str, arguments))


def run(*words: str) -> str:
    """Run a program to its end; returns what it printed.

    Raises:
        BenchFailed: it is missing or failed; what it said is in the message.
    """
    path = find(words[0])
    if path is None:
        raise BenchFailed(f"{words[0]} is missing", hint="install it; the bench cannot do without")
    reader, writer = os.pipe()
    errors = os.memfd_create("errors")
    try:
        pid = _spawned(path, words, output=writer, errors=errors)
        os.close(writer)
        writer = -1
        printed = _read_all(reader)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code != 0:
            said = os.pread(errors, _READ_BYTES, 0).decode(errors="replace").strip()
            raise BenchFailed(f"{' '.join(words)} ended with {code}: {said}")
        return printed
    finally:
        for descriptor in (reader, errors, *([writer] if writer >= 0 else [])):
            os.close(descriptor)


def run_unheard(words: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
    """Run a program to its end, its output thrown away; raises BenchFailed."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a descriptor is wanted
        ends = [(os.POSIX_SPAWN_DUP2, nowhere.fileno(), end) for end in (1, 2)]
        pid = os.posix_spawn(words[0], list(words), environment, file_actions=ends)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        raise BenchFailed(f"{' '.join(words)} ended with {code}")


class Background:
    """A program that runs until it is told to end; what it says is kept in memory."""

    def __init__(self, words: Sequence[str]) -> None:
        self._said = os.memfd_create("said")  # in no file: what the program writes is measured
        self.pid = _spawned(words[0], words, output=self._said, errors=self._said)
        self._code: int | None = None

    def said(self) -> str:
        """Return the last line that it said."""
        size = os.fstat(self._said).st_size
        text = os.pread(self._said, _READ_BYTES, max(0, size - _READ_BYTES))
        return (text.decode(errors="replace").strip().splitlines() or [""])[-1]

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        if self._code is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.is_alive:
            os.kill(self.pid, number)


def _spawned(path: str, words: Sequence[str], *, output: int, errors: int) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, errors, 2)]
    return os.posix_spawn(path, list(words), os.environ, file_actions=actions)


def _read_all(descriptor: int) -> str:
    parts = []
    while part := os.read(descriptor, _READ_BYTES):
        parts.append(part)
    return b"".join(parts).decode(errors="replace")

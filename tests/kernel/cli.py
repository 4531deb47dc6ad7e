"""`byre` called as its users call it, without paying for a new Python each time.

`Cli` runs a command in this very process and hands back what it printed and its exit code. Where
a second process matters (a reconciler that runs on, one that is killed), `Cli.fork` runs the same
command in a forked child: a process of its own with signals, locks and descriptors of its own,
there in milliseconds, where starting the real program over 9p takes the guest 5 to 30 s. That the
real program does the same is shown in `test_specs`.

May be imported by the kernel tests.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import attrs

from reconciler.cli import app

END_S = 60.0
"""How long a child that was told to end may take in the slow guest."""
POLL_S = 0.02


@attrs.frozen(kw_only=True)
class Answer:
    """What a command printed and returned."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - it is what JSON is
        """The one JSON document on stdout."""
        return json.loads(self.out)


def until(condition: Callable[[], bool], what: str, *, timeout_s: float = 20.0) -> None:
    """Wait until something is so; `what` says in the failure what never came."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"after {timeout_s:g} s still not so: {what}"
        time.sleep(POLL_S * 5)


class Child:
    """A forked command; its output goes to a file, so nothing ever blocks on a pipe."""

    def __init__(self, pid: int, output: Path) -> None:
        self.pid = pid
        self._output = output
        self._code: int | None = None

    @property
    def output(self) -> str:
        """What it printed so far, stdout and stderr together."""
        return self._output.read_text()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._reap(os.WNOHANG) is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.is_alive:
            os.kill(self.pid, number)

    def wait(self, timeout_s: float = END_S) -> int:
        """Wait for its end; the exit code, or minus the signal that killed it."""
        until(lambda: not self.is_alive, f"the end of {self._output.name}", timeout_s=timeout_s)
        assert self._code is not None
        return self._code

    def terminate(self) -> int:
        """End it as systemd does; returns as `wait`."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> int:
        """End it as a crash does; returns as `wait`."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def _reap(self, options: int) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code


@attrs.define(eq=False)
class Cli:
    """The command line of one root, with one device prefix."""

    root: Path
    prefix: str
    _children: list[Child] = attrs.field(factory=list, init=False)

    def words(self, *words: object) -> list[str]:
        """Return the arguments of `byre` for a command on this root."""
        return ["--root", str(self.root), "--device-prefix", self.prefix, *map(str, words)]

    def __call__(self, *words: object, expect: int | None = 0) -> Answer:
        """Run a command here; its exit code must be `expect`, None for any."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = _exit_code(self.words(*words))
        answer = Answer(code=code, out=out.getvalue(), err=err.getvalue())
        assert expect in (None, answer.code), f"byre {' '.join(map(str, words))}: {answer}"
        return answer

    def fork(self, *words: object, before: Callable[[], None] = lambda: None) -> Child:
        """Run a command in a child; `before` runs there first, say to break something."""
        output = self.root.with_name(f"child-{len(self._children)}.txt")
        output.touch()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: no thread is running here
            pid = os.fork()
        if pid == 0:
            _be_the_child(self.words(*words), output, before)
        child = Child(pid, output)
        self._children.append(child)
        return child

    def daemon(self, *words: object) -> Child:
        """Fork `byre run` that is woken by its watchers alone, and wait until it is ready."""
        child = self.fork("run", "--resync", "600", *words)
        ready = "reconciler started"
        until(lambda: child.is_alive and child.output.count(ready) == 1, ready, timeout_s=END_S)
        return child

    def end_children(self) -> None:
        """Kill what still runs; for the end of a test."""
        for child in self._children:
            child.kill()


def _exit_code(words: list[str]) -> int:
    try:
        app.run(words)
    except SystemExit as end:
        return int(end.code or 0)
    raise AssertionError("byre always ends with an exit code")


def _be_the_child(words: list[str], output: Path, before: Callable[[], None]) -> NoReturn:
    """Run a command as a program of its own; never returns into the test."""
    code = 99
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
        for number in (1, 2):
            os.dup2(descriptor, number)
        os.setsid()
        signal.alarm(0)  # pytest-timeout's clock is the parent's
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdout = sys.stderr = os.fdopen(descriptor, "w", buffering=1, encoding="utf-8")
        before()
        code = _exit_code(words)
        sys.stdout.flush()
    finally:
        os._exit(code)

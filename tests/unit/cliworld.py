"""The command line in this process, on a simulated kernel: what it says where, and its code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog

from reconciler import thishost
from reconciler.cli.app import run
from reconciler.kernel.sim import SimKernel
from tests.unit.builders import BASE, MIB


@attrs.frozen(kw_only=True)
class Answer:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - a test knows what it asked for
        """What it said to machines, as one document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """What it said to machines, line by line."""
        return [json.loads(line) for line in self.out.splitlines()]


class World:
    """Runs commands on one root and one simulated host."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.kernel = SimKernel()
        self.kernel.make_file(BASE, MIB, b"base")
        self.folder = folder
        self.root = folder / "root"
        self._capsys = capsys
        monkeypatch.setattr(thishost, "kernel", lambda: self.kernel)
        monkeypatch.setattr(thishost, "allocated", self.kernel.allocated)

    def byre(self, *arguments: str | Path) -> Answer:
        """Run one command; errors of Python's own come out as they are."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(["--root", str(self.root), *map(str, arguments)])
        # What a command set up speaks to a stream that pytest closes after this test.
        structlog.reset_defaults()
        said = self._capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Answer(code=code, out=said.out, err=said.err)

    def create(self, name: str = "sb-1", *more: str | Path) -> Answer:
        """Create a disk and wait for it."""
        return self.byre("create", name, "--base", BASE, "--wait", "--timeout", "10", *more)

    def spec(self, text: str, name: str = "disks.toml") -> Path:
        """Write a spec file."""
        path = self.folder / name
        path.write_text(text)
        return path

    def seq(self) -> int:
        """Return the seq of the newest event."""
        events = self.byre("history", "-o", "jsonl").lines
        return int(events[-1]["seq"]) if events else 0

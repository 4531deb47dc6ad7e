"""Paused disks on real files, without device-mapper: a base, CoW files by hand, and the commands.

A disk is made of a CoW file that nobody knows, by adopting it; so any store can be tried, sound or
not, on any host and as any user.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import attrs
import pytest

from reconciler.cli.app import run
from tests.unit.cowfiles import HEADER, cow_file, data_chunks

CHUNK = 4096
MIB = 2**20


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


def store(changes: dict[int, bytes], *, chunks: int = 0) -> bytes:
    """Lay out a store that holds these chunks of a disk, committed in this order."""
    news = data_chunks(HEADER, len(changes))
    raw = bytearray(cow_file(HEADER, list(zip(changes, news, strict=True))))
    for new, data in zip(news, changes.values(), strict=True):
        raw[new * CHUNK : (new + 1) * CHUNK] = data.ljust(CHUNK, b"\0")
    return bytes(raw).ljust(chunks * CHUNK, b"\0")


def overlaid(base: bytes, changes: dict[int, bytes]) -> bytes:
    """Return what a disk with these changes shows."""
    whole = bytearray(base)
    for old, data in changes.items():
        whole[old * CHUNK : (old + 1) * CHUNK] = data.ljust(CHUNK, b"\0")
    return bytes(whole[: len(base)])


class Yard:
    """A root of its own, a base, and the command line on them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.base = folder / "base.img"
        self._capsys = capsys

    def byre(self, *words: str | Path, code: int = 0, root: Path | None = None) -> Answer:
        """Run one command; its exit code must be `code`."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(["--root", str(root or self.root), *map(str, words)])
        said = self._capsys.readouterr()
        answer = Answer(code=int(ended.value.code or 0), out=said.out, err=said.err)
        assert answer.code == code, answer
        return answer

    def make_base(self, content: bytes) -> None:
        """Write the base."""
        self.base.write_bytes(content)

    def paused(self, name: str, raw: bytes) -> Path:
        """Make a paused disk of a store; returns its CoW file."""
        self.byre("log", "verify") if (self.root / "byre.db").exists() else self.byre(
            "run", "--once"
        )
        cow = self.root / "cow" / f"{secrets.token_hex(16)}-1.cow"
        cow.parent.mkdir(mode=0o700, exist_ok=True)
        cow.write_bytes(raw)
        self.byre("orphans", "--adopt", cow.name, "--as", name, "--base", self.base)
        return cow

    def rest(self) -> list[str]:
        """Return the files in the folder, besides the base and the root."""
        known = {self.base.name, self.root.name}
        return sorted(each.name for each in self.folder.iterdir() if each.name not in known)

"""Running the commands of a page as a reader would, and comparing what they print with the page.

A block of `sh` is run; a block of `text` right after it says what is seen. In such a block `…`
stands for anything, runs of spaces count as one, and lines may be left out, but not swapped.

What this module does not do: it cleans up nothing; the tests that use it do.
May be imported by the tests of tests/style.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import attrs

from tests.style import REPOSITORY

_FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIMEOUT_S: Final = 110


@attrs.frozen
class Step:
    """One block of commands, and what the page says they print."""

    commands: str
    expected: str


def steps(page: str) -> list[Step]:
    """Return the blocks of commands of a page, in order."""
    found: list[Step] = []
    for kind, text in _FENCE.findall((REPOSITORY / page).read_text(encoding="utf-8")):
        if kind == "sh":
            found.append(Step(text, ""))
        elif kind == "text" and found:
            found[-1] = attrs.evolve(found[-1], expected=found[-1].expected + text)
    return found


def blocks(page: str, kind: str) -> list[str]:
    """Return the fenced blocks of one kind ("python", "toml") of a page."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return [block for found, block in _FENCE.findall(text) if found == kind]


def run(
    commands: str, folder: Path, *, timeout_s: float = TIMEOUT_S, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run commands in one shell that ends at the first error; both outputs come as stdout."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    return subprocess.run(
        ["sh", "-euc", commands],
        cwd=folder,
        env={**os.environ, "PATH": path, "TERM": "dumb", "LC_ALL": "C.UTF-8", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def missing_lines(expected: str, printed: str) -> list[str]:
    """Return the lines of `expected` that were not printed in their order."""
    lines = [_squeezed(line) for line in printed.splitlines()]
    missing = []
    for wanted in filter(None, map(_squeezed, expected.splitlines())):
        pattern = re.compile(".*".join(map(re.escape, wanted.split("…"))))
        at = next((n for n, line in enumerate(lines) if pattern.fullmatch(line)), None)
        if at is None:
            missing.append(wanted)
        else:
            lines = lines[at + 1 :]
    return missing


def _squeezed(line: str) -> str:
    return " ".join(line.split())

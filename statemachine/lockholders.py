"""Who holds a lock on a file: pid, command, and whether the process is stopped.

Read from /proc/locks (proc(5)), which lists POSIX locks and flocks with the inode that they are on.
The file itself is never opened: closing any descriptor of a file drops all POSIX locks that this
process has on it (fcntl(2)), and SQLite's connections live by such locks.

Says what it can see: a holder in another pid namespace has no pid here, and some file systems show
another device number than stat does; then nobody is named. For messages, never for decisions.
May be imported by database and by `reconciler.lock`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LOCKS: Final = Path("/proc/locks")
_COMMAND_MAX: Final = 80
_LOCK: Final = (
    r"\d+: (?:POSIX|FLOCK|OFDLCK) +\S+ +(?:READ|WRITE) (?P<pid>\d+) "
    r"(?P<major>[0-9a-f]+):(?P<minor>[0-9a-f]+):(?P<inode>\d+) (?P<first>\d+) (?P<last>\d+|EOF)"
)


def holders(path: Path, *, byte: int | None = None) -> tuple[str, ...]:
    """Return who holds locks on a file: "pid 4711 (byre run)", each once, but for ourselves.

    Args:
        path: the file; need not exist.
        byte: only locks that cover this byte of the file; None for any.
    """
    try:
        status = path.stat()
        lines = LOCKS.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    pids = _pids(lines, status, byte)
    return tuple(process(pid) for pid in dict.fromkeys(pids) if pid != os.getpid())


def process(pid: int) -> str:
    """Return a process in words: "pid 4711 (byre run), which is stopped"."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return f"pid {pid}"
    command = " ".join(words.rstrip("\0").split("\0"))[:_COMMAND_MAX]
    stopped = ", which is stopped" if state in ("T", "t") else ""
    return f"pid {pid} ({command}){stopped}" if command else f"pid {pid}{stopped}"


def _pids(lines: list[str], status: os.stat_result, byte: int | None) -> Iterator[int]:
    device = (os.major(status.st_dev), os.minor(status.st_dev))
    for line in lines:
        lock = re.fullmatch(_LOCK, line)  # one that waits has "->" and holds nothing
        if lock is None or int(lock["inode"]) != status.st_ino:
            continue
        if (int(lock["major"], 16), int(lock["minor"], 16)) != device:
            continue
        last = None if lock["last"] == "EOF" else int(lock["last"])
        if byte is None or (int(lock["first"]) <= byte and (last is None or byte <= last)):
            yield int(lock["pid"])

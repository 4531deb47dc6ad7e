"""How much memory the longest questions to a log take: each command in a process of its own.

Each notes what it had at its peak when it ends (`VmHWM` in proc_pid_status(5), which begins anew
with the program; what getrusage(2) gives to a parent begins with the parent's own size). It is told
as the difference to the same program that asks for the head alone. May be imported by the package
only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from reconciler.bench.programs import python, run_unheard

BARE: Final = ("log", "head")
LONGEST: Final[tuple[tuple[str, ...], ...]] = (
    ("log", "verify"),
    ("replay",),
    ("history", "-o", "jsonl"),
    ("history", "--summary", "-o", "json"),
    ("history", "--text", "nothing has this text", "-o", "jsonl"),
    ("log", "export", "--format", "cloudevents"),
)
"""Commands that read every event of a log."""
_PROGRAM: Final = (
    "import atexit; from reconciler.bench.memory import note; atexit.register(note, {path!r}); "
    "from reconciler.cli import main; main()"
)


def more_mb(root: Path, scratch: Path) -> Mapping[str, float]:
    """Return how many MB (10^6 bytes) more than the bare program each command takes.

    Args:
        root: of the log.
        scratch: a file that may be written.
    """
    bare = _peak_kib(root, scratch, BARE)
    return {
        f"byre {' '.join(words)}": round((_peak_kib(root, scratch, words) - bare) * 1024 / 1e6, 1)
        for words in LONGEST
    }


def note(path: str) -> None:
    """Write down how much memory this process had at its peak, in KiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    Path(path).write_text(peak.split()[1], encoding="ascii")


def _peak_kib(root: Path, scratch: Path, words: Sequence[str]) -> int:
    scratch.unlink(missing_ok=True)
    program = _PROGRAM.format(path=str(scratch))
    run_unheard(python("-c", program, "--root", str(root), *words))
    return int(scratch.read_text(encoding="ascii"))

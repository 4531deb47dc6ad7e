"""Starting fio for one job, and reading what it measured.

fio, of Debian, is the yardstick that others can repeat: its words are in the table's notes. May be
imported by the package and tests.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import attrs

from reconciler.bench import programs
from reconciler.bench.results import BenchFailed

DEPTH: Final = 8
"""How many requests are on their way at once, as a VMM's queue has them."""
_CAPS_S: Final = 60
"""What takes longer is cut off there; the rate is then that of this minute."""
_SYNCS: Final = 16
"""So often a writing job syncs, as a guest's journal does: what counts is what is durable. fio does
not count the sync that it makes at an end."""


@attrs.frozen(kw_only=True)
class Job:
    """One way of reading or writing."""

    title: str
    rw: str
    """As fio calls it: "read", "randwrite", …"""
    block_bytes: int
    is_random: bool

    @property
    def unit(self) -> str:
        """What its rate is counted in."""
        return "IOPS" if self.is_random else "MB/s"

    @property
    def way(self) -> str:
        """Return "read" or "write"."""
        return "read" if self.rw.endswith("read") else "write"


def words(job: Job, target: Path, *, size: int, total: int, direct: bool, seed: int) -> list[str]:
    """Return fio's command line for a job.

    Args:
        job: what is done.
        target: a file or a device; it is not made larger.
        size: which part of it, in bytes from the beginning.
        total: how much is read or written; of a random job, so many bytes of different blocks.
        direct: whether to go past the page cache of whatever asks.
        seed: the same seed visits the same blocks in the same order.
    """
    return [
        "fio", f"--name={job.way}", f"--filename={target}", f"--rw={job.rw}",
        f"--bs={job.block_bytes}", f"--size={size}", f"--io_size={total}",
        f"--iodepth={DEPTH}", "--ioengine=libaio", f"--direct={int(direct)}",
        "--allow_file_create=0", f"--randseed={seed}", "--refill_buffers=1",
        f"--fsync={max(1, total // job.block_bytes // _SYNCS)}", f"--runtime={_CAPS_S}",
        "--output-format=json",
    ]  # fmt: skip


def run(job: Job, target: Path, *, size: int, total: int, direct: bool, seed: int) -> float:
    """Do a job; returns its rate, in MB/s or IOPS.

    Raises:
        BenchFailed: fio is missing or failed, or said something that cannot be read.
    """
    line = words(job, target, size=size, total=total, direct=direct, seed=seed)
    return rate(job, programs.run(*line))


def rate(job: Job, printed: str) -> float:
    """Read the rate of a job from fio's JSON; raises BenchFailed."""
    try:
        # fio may say a word to people before its JSON.
        [found] = json.loads(printed[printed.index("{") :])["jobs"]
        told = found[job.way]
        return float(told["iops"] if job.is_random else told["bw_bytes"] / 1e6)
    except (ValueError, KeyError, TypeError) as error:
        msg = f"fio printed what cannot be read ({error!r}): {printed[:200]!r}"
        raise BenchFailed(msg, hint="fio 3 is needed") from error


def can_be_direct(path: Path) -> bool:
    """Tell whether a file or a device can be opened past the page cache."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True

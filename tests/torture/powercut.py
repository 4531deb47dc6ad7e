"""Power cuts: QEMU is killed under load, and what a volatile write cache may lose is lost.

    python -m tests.torture.powercut [--cuts N] [--seed S] [--out DIR]        (on the host)

Each boot works on the disk that the cut before it left (`writelog`), checks all that was ever
acknowledged (`cutguest`), and puts load on it again until QEMU is killed: under load, or now and
then while it still recovers. The last boot takes everything down. Needs what the VM needs.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

from tests.kernel import vm
from tests.kernel.image import ImageError
from tests.torture import writelog
from tests.torture.ledger import take_back
from tests.torture.writelog import Cut

IMAGE_BYTES: Final = 192 << 20
LOG_BYTES: Final = 4 << 30
"""Sparse: QEMU does not make it longer."""
ACKNOWLEDGED_MAX: Final = 40
"""A cut comes after so many acknowledgements at the most, and a moment."""
MOMENT_MAX_S: Final = 1.0
MARKS_MAX: Final = 40
"""How many looks back the power may have gone: two seconds' worth."""
BOOT_TIMEOUT_S: Final = 900.0
_ANSWER: Final = re.compile(rb'"kind": "(?:told|flushed)"')
_LOAD: Final = b'"kind": "boot"'


@attrs.frozen(kw_only=True)
class Mark:
    """How long the ledger was at one look, and the log of writes right after."""

    ledger: int
    log: int


class Torture:
    """A series of boots on one disk.

    Args:
        folder: for the disk, the ledger and the guests' output; made anew.
        seed: chooses the load, the moments and what is forgotten; timing remains the host's.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._image = folder / "state.img"
        self._scratch = folder / "scratch.img"
        self._log = folder / "writes.log"
        self._out = folder / "out"
        self._ledger = self._out / "ledger.jsonl"
        self._seed = seed
        self._chance = random.Random(seed)  # noqa: S311 - not a secret
        self._marks: list[Mark] = []
        self.cuts: list[Cut] = []

    def run(self, cuts: int) -> None:
        """Cut so often, then check for the last time and take everything down.

        Raises:
            AssertionError: a guest found something wrong; its output says what.
        """
        make_disk(self._image)
        for boot in range(cuts):
            code = self._boot(boot, self._moment(boot))
            assert code == vm.EXIT_CUT, f"boot {boot} of seed {self._seed} ended with {code}"
            cut = self._cut()
            self.cuts.append(cut)
            print(f"powercut: boot {boot} was cut: {cut}", flush=True)
        code = self._boot(cuts, lambda: False, "--last")
        assert code == 0, f"the last boot of seed {self._seed} ended with {code}"

    def _boot(self, boot: int, cut: Callable[[], bool], *words: str) -> int:
        copy_sparse(self._image, self._scratch)
        self._log.unlink(missing_ok=True)
        make_sparse(self._log, LOG_BYTES)
        guest = ("python", "-m", "tests.torture.cutguest", str(self._ledger))
        return vm.run_in_vm(
            [*guest, str(self._seed * 1000 + boot), *words],
            out=self._out,
            timeout_s=BOOT_TIMEOUT_S,
            qemu_options=writelog.drive(self._scratch, self._log),
            cut=cut,
        )

    def _moment(self, boot: int) -> Callable[[], bool]:
        """Return when the power goes: under load, or every fifth time or so amid the recovery."""
        seen = len(self._told())
        self._marks = []
        early = boot > 1 and self._chance.random() < 0.2
        enough = 1 if early else self._chance.randint(2, ACKNOWLEDGED_MAX)
        moment_s = self._chance.uniform(0.0, MOMENT_MAX_S)
        due_s: list[float] = []

        def is_due() -> bool:
            told = self._told()[seen:]
            # In this order: what was told by now is in the log of writes by then.
            self._marks.append(Mark(ledger=seen + len(told), log=written(self._log)))
            if early or _LOAD in told:
                answers = told if early else told[told.index(_LOAD) :]
                if not due_s and len(_ANSWER.findall(answers)) >= enough:
                    due_s.append(time.monotonic() + moment_s)
            return bool(due_s) and time.monotonic() >= due_s[0]

        return is_due

    @property
    def acknowledged(self) -> int:
        """How often something was acknowledged."""
        return len(_ANSWER.findall(self._told()))

    def _told(self) -> bytes:
        return self._ledger.read_bytes() if self._ledger.exists() else b""

    def _cut(self) -> Cut:
        """Make the disk that the cut left.

        QEMU is killed where it happens to be, which is mostly at rest. So the power is taken to
        have gone a moment earlier, between any two requests since one of the last looks at both
        files, and what was told after that look is taken back.
        """
        mark = self._chance.choice(self._marks[-MARKS_MAX:])
        before, all_of_them = writelog.count(self._log, self._image, before=mark.log)
        take_back(self._ledger, after=mark.ledger)
        requests = self._chance.randint(before, all_of_them)
        return writelog.replay(self._log, self._image, self._keeper(), requests=requests)

    def _keeper(self) -> Callable[[], bool]:
        """Return whether writes that nobody flushed are there: none, all, or any of them."""
        share = self._chance.choice((0.0, 0.5, 1.0))
        return lambda: self._chance.random() < share


@attrs.frozen(kw_only=True)
class Figures:
    """What a series of cuts did."""

    cuts: int
    writes_safe: int
    writes_kept: int
    writes_forgotten: int
    acknowledged: int
    lost: int = 0
    leaked: int = 0

    def __str__(self) -> str:
        """Print one figure a line."""
        return "\n".join(f"{name}: {value}" for name, value in attrs.asdict(self).items())


def figures(torture: Torture) -> Figures:
    """Sum up a series that ended well."""
    cuts = torture.cuts
    return Figures(
        cuts=len(cuts),
        writes_safe=sum(cut.safe for cut in cuts),
        writes_kept=sum(cut.kept for cut in cuts),
        writes_forgotten=sum(cut.forgotten for cut in cuts),
        acknowledged=torture.acknowledged,
    )


def make_disk(image: Path) -> None:
    """Make an empty file system in a file."""
    make_sparse(image, IMAGE_BYTES)
    lazy = "lazy_itable_init=0,lazy_journal_init=0"
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-E", lazy, str(image)]
    subprocess.run(command, check=True, timeout=60)


def make_sparse(path: Path, size: int) -> None:
    """Make a file of holes."""
    with path.open("xb") as file:
        file.truncate(size)


def written(log: Path) -> int:
    """Return how far a sparse log was written, rounded up to the block of its file system."""
    with log.open("rb") as file:
        return os.lseek(file.fileno(), 0, os.SEEK_HOLE)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file, holes as holes."""
    command = ["cp", "--sparse=always", "--reflink=auto", str(source), str(target)]
    subprocess.run(command, check=True, timeout=60)


def main() -> int:
    """Cut as the command line says; print the figures."""
    parser = argparse.ArgumentParser(prog="powercut", description="Cut the power, lose nothing.")
    parser.add_argument("--cuts", type=int, default=20, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--out", type=Path, default=vm.CACHE / "powercut", metavar="DIR")
    arguments = parser.parse_args()
    vm.end_guest_on_signals()
    torture = Torture(arguments.out.absolute(), arguments.seed)
    try:
        torture.run(arguments.cuts)
    except (vm.VmError, ImageError, writelog.BadLog, AssertionError) as error:
        print(f"powercut: {error}", file=sys.stderr)
        return 1
    print(figures(torture))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`byre bench` on a real device-mapper: it measures, and however it ends, nothing is left."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from reconciler.bench import programs, runner
from reconciler.bench.plan import Plan
from reconciler.bench.results import BenchFailed
from reconciler.bench.tended import Tended
from reconciler.bench.yard import PREFIX, yard
from reconciler.kernel.linux import LinuxKernel
from tests import uncovered
from tests.contract.real_world import MAPPER

pytestmark = pytest.mark.kernel

END_S = 100


def left_in(folder: Path) -> list[str]:
    """Name what a bench with its folder here has left."""
    kernel = LinuxKernel()
    loops = [loop.backing_path for loop in kernel.loops()]
    found = [path for path in loops if path.startswith(f"{folder.resolve()}/")]
    found += [line.name for line in kernel.dm_names() if line.name.startswith(PREFIX)]
    found += [str(path) for path in MAPPER.iterdir() if path.name.startswith(PREFIX)]
    return found + [path.name for path in folder.iterdir()]


def test_a_life_is_measured_for_everybody_and_nothing_is_left(folder: Path) -> None:
    done = runner.run(["create", "heal"], Plan(rounds=1), LinuxKernel(), folder, where="here")
    assert [row.left_out for row in done.rows] == ["", ""]
    create, heal = done.rows
    names = {"exec", "floor", "byre", "byre, by its log", "byre, no daemon"}
    assert names == {series.name for series in create.series}
    assert [series.name for series in heal.series] == ["byre"]
    assert left_in(folder) == []


def test_what_a_measurement_leaves_live_is_taken_away(folder: Path) -> None:
    def leave_it_live() -> None:
        with yard(LinuxKernel(), folder) as place:
            Tended(place).create("left")
            assert len(left_in(folder)) > 1
            raise BenchFailed("it went wrong")

    with pytest.raises(BenchFailed, match="it went wrong"):
        leave_it_live()
    assert left_in(folder) == []


def test_a_signal_in_the_middle_leaves_nothing(folder: Path) -> None:
    with subprocess.Popen(
        programs.byre("bench", "create", "--rounds", "1000", "--folder", folder),
        env=uncovered.environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "life 2" not in (line := process.stderr.readline()):
            assert line, "it ended before"
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(END_S) == 128 + signal.SIGTERM, rest
    assert left_in(folder) == []

"""`byre bench` as a command: what it prints where, its exit codes; Ctrl-C leaves nothing."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reconciler.bench import counts
from reconciler.bench.machine import describe
from reconciler.bench.plan import Plan
from reconciler.bench.results import RowResult, Run
from reconciler.cli.app import run
from reconciler.kernel.port import Kernel
from tests import uncovered

END_S = 60


def bench(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[object, str, str]:
    """Run the command here; returns its exit code and what it printed."""
    with pytest.raises(SystemExit) as ended:
        run(["bench", *map(str, words)])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Have nothing measured: rows are made up, and what was asked for is kept."""
    asked: dict[str, Any] = {"failed": False, "left_out": "made up"}

    def made_up(names: list[str], plan: Plan, _kernel: Kernel, parent: Path, *, where: str) -> Run:
        asked.update(names=names, plan=plan, parent=parent)
        machine = describe(parent, where=where)
        rows = [
            RowResult(name=name, title=name, left_out=asked["left_out"], failed=asked["failed"])
            for name in names
        ]
        return Run(machine=machine, quick=plan.quick, rounds=plan.rounds, rows=tuple(rows))

    monkeypatch.setattr("reconciler.cli.benching.run", made_up)
    return asked


def test_json_goes_to_stdout_alone(
    measured: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = bench(
        capsys, "sim", "get", "--quick", "--where", "there", "--folder", tmp_path, "-o", "json"
    )
    [told] = json.loads(out)["runs"]
    assert (code, told["machine"]["where"], told["quick"]) == (0, "there", True)
    assert [row["name"] for row in told["rows"]] == ["sim", "get"]
    assert (measured["plan"].rounds, measured["parent"]) == (3, tmp_path)


def test_the_table_goes_to_stderr(
    measured: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = bench(capsys, "get", "--rounds", "7")
    assert (code, out, measured["plan"].rounds) == (0, "", 7)
    assert "left out: made up" in err


def test_another_run_is_shown_with_it(
    measured: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, out, _ = bench(capsys, "get", "--where", "the first", "-o", "json")
    (tmp_path / "first.json").write_text(out)
    _, both, _ = bench(capsys, "sim", "--with", tmp_path / "first.json", "-o", "json")
    names = [[row["name"] for row in each["rows"]] for each in json.loads(both)["runs"]]
    assert (names, measured["names"]) == ([["get"], ["sim"]], ["sim"])


def test_a_file_of_figures_is_kept_up_to_date_and_a_foreign_one_is_left_alone(
    measured: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    figures = tmp_path / "figures.json"
    measured["left_out"] = ""
    bench(capsys, "get", "sim", "--rounds", "5", "--into", figures)
    bench(capsys, "get", "--rounds", "6", "--into", figures)
    runs = json.loads(figures.read_text())["runs"]
    told = [(each["rounds"], [row["name"] for row in each["rows"]]) for each in runs]
    assert told == [(5, ["sim"]), (6, ["get"])]
    figures.write_text("a letter")
    code, _, err = bench(capsys, "get", "--into", figures)
    assert (code, "figures.json" in err, figures.read_text()) == (2, True, "a letter")


def test_a_row_that_failed_makes_the_command_fail(
    measured: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    measured["failed"] = True
    assert bench(capsys, "get")[0] == 1


def test_without_matplotlib_it_says_what_it_left_out(
    measured: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    code, _, err = bench(capsys, "get", "--plots", tmp_path / "pictures")
    assert (code, measured["names"]) == (0, ["get"])
    assert "no pictures were drawn: matplotlib is not installed" in err
    assert not (tmp_path / "pictures").exists()


def test_an_unknown_row_is_a_mistake_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = bench(capsys, "crate")
    assert (code, "there is no row 'crate'" in err) == (2, True)


def test_counts_are_within_their_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = bench(capsys, "--counts", "-o", "json")
    assert (code, json.loads(out).keys()) == (0, counts.BOUNDS.keys())


def test_a_count_above_its_bound_fails_and_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(counts.BOUNDS, "pause", counts.BOUNDS["resync"])
    code, _, err = bench(capsys, "--counts")
    assert (code, "pause: 2 commits, at most 0" in err) == (1, True)


def test_counts_take_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(capsys, "create", "--counts")[0] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "from reconciler.cli import main; main()", "bench", "sim"],
        env=uncovered.environment(TMPDIR=str(tmp_path)),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "simulated disks" in process.stderr.readline()
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(END_S) == 128 + number, rest
    assert "cleaning up" in rest
    assert list(tmp_path.iterdir()) == []

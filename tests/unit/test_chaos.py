"""`byre chaos`: runs converge, are the same for the same seed, and find what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.actions import RemoveCow
from reconciler.bases import BaseLoops
from reconciler.chaos import Plan, run, smallest
from reconciler.chaos.failing import CALLS
from reconciler.chaos.runner import ACTS
from reconciler.kernel.port import Kernel
from reconciler.kernel.sim import SimKernel
from tests.style import REPOSITORY

PAGE = REPOSITORY / "docs/how-to/try-faults.md"
GROUPS = 20
SEEDS = 5000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 300
"""In all groups together; in CI the short ones are enough to try each act many times."""
STEPS = 30


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("group", range(GROUPS))
def test_whatever_goes_wrong_it_converges(group: int) -> None:
    for seed in range(group, SEEDS, GROUPS):
        report = run(Plan(seed=seed, steps=STEPS))
        assert report.problems == (), report.plan.command()


def test_many_steps_and_many_disks_converge() -> None:
    report = run(Plan(seed=1, steps=300, disks=12))
    assert report.problems == (), report.plan.command()
    assert {step.kind for step in report.steps} == {"asked", "wrote", "broke", "mended", "waited"}


def test_the_same_seed_gives_the_very_same_run_in_another_process() -> None:
    first, second = byre_chaos(hash_seed="1"), byre_chaos(hash_seed="2")
    assert first == second
    assert first[0] == 0
    assert json.loads(first[1])["converged"] is True


def byre_chaos(*, hash_seed: str) -> tuple[int, str, str]:
    """Run the command with another order of sets and another process id."""
    program = "from reconciler.cli.app import run; run(['chaos', '--seed', '3', '-o', 'json'])"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_a_run_of_fewer_steps_is_the_beginning_of_a_longer_one() -> None:
    short, long = run(Plan(seed=5, steps=10)), run(Plan(seed=5, steps=20))
    assert long.steps[:10] == short.steps[:10]


def test_every_call_of_the_port_can_fail_in_it() -> None:
    assert {name for name in dir(SimKernel) if name in vars(Kernel) and name[0] != "_"} == set(
        CALLS
    )


def test_every_act_happens_in_some_run() -> None:
    kinds = [act for _, _, act in ACTS]
    assert len(set(kinds)) == len(kinds)
    broke: set[str] = set()
    for seed in range(12):
        broke |= run(Plan(seed=seed, steps=150)).broke.keys()
    assert broke >= {
        "CoW file damaged",
        "CoW file deleted",
        "CoW file moved away",
        "CoW file swapped",
        "base moved away",
        "clock set",
        "crash at a call",
        "crash at a commit",
        "device removed",
        "device renamed",
        "device suspended",
        "device with another table",
        "failing commits",
        "foreign device",
        "foreign loop",
        "full file system",
        "left open",
        "link deleted",
        "link occupied",
        "loop detached",
        "power cut",
        "reboot",
        "restart",
        "udev holds devices",
    }


# --- a mistake in byre is found ------------------------------------------------------------------


def test_a_leak_is_found_and_the_least_steps_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemoveCow, "do", lambda _self, _scene: False)
    plan = Plan(seed=0, steps=40)
    assert any("leaked" in each for each in run(plan).problems)
    least = smallest(plan)
    assert least.steps < plan.steps
    assert run(least).problems != ()
    assert least.command() == f"byre chaos --seed 0 --steps {least.steps}"


def test_an_unexpected_exception_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_self: BaseLoops, _disk: str, _base: object) -> bool:
        raise KeyError("a mistake")

    monkeypatch.setattr(BaseLoops, "release", fails)
    problems = [problem for seed in range(3) for problem in run(Plan(seed=seed)).problems]
    assert any("KeyError: 'a mistake'" in each for each in problems)


def test_no_file_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.chaos.runner.MEMORY", tmp_path)
    run(Plan(seed=1, steps=5))
    assert list(tmp_path.iterdir()) == []


# --- the page ------------------------------------------------------------------------------------


def test_the_page_has_what_a_run_prints_and_every_kind_of_line() -> None:
    text = PAGE.read_text(encoding="utf-8")
    command = Plan(seed=11, steps=16, disks=2).command()
    assert command in text
    report = run(Plan(seed=11, steps=16, disks=2))
    assert report.converged
    # Byre may call its kernel more or less often than when the page was written, and then the
    # dice fall otherwise. The first steps are drawn before it calls anything.
    for step in report.steps[:3]:
        assert step.text in text

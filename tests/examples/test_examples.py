"""Each example runs as its reader would run it, ends well, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from reconciler.kernel.linux import LinuxKernel
from tests.kernel import vm
from tests.kernel.image import ensure_kernel
from tests.kernel.microvm import TEMPLATE

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT_S = 540
"""In the slow guest every start of `byre` takes seconds."""
NESTED_S = 1200
"""A machine in the guest is slower by that factor once more."""
RUNS = {
    "01_python_api.py": ("python", "01_python_api.py"),
    "02_specs": ("sh", "02_specs/run.sh"),
    "03_shell.sh": ("sh", "03_shell.sh"),
    "microvm": ("python", "microvm/run.py"),
}
WITH_A_LOG = "04_verify_in_plain_python.py"
"""It takes the file of a log; see test_verify_in_plain_python."""
WITH_STAND_INS = "firecracker"
"""It needs KVM; see test_firecracker."""
TOLD = {
    "01_python_api.py": "it reads: what the base image begins with",
    "02_specs": "3 of 3 disks are as they should be",
    "03_shell.sh": "the data is there: written by a sandbox",
    "microvm": "vm-a and vm-b: ran side by side from one memory, and differ",
}

pytestmark = pytest.mark.slow


def check_example(
    name: str, temporary: Path, *words: str, timeout_s: float = TIMEOUT_S, **environment: str
) -> str:
    """Run an example; returns what it told."""
    temporary = temporary.resolve()
    scripts = sysconfig.get_path("scripts")
    done = subprocess.run(
        [*RUNS[name], *words],
        cwd=EXAMPLES,
        env={
            **os.environ,
            "PATH": f"{scripts}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "PYTHONPATH": str(EXAMPLES.parent),
            "TMPDIR": str(temporary),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert TOLD[name] in told
    kernel = LinuxKernel()
    loops = [each for each in kernel.loops() if each.backing_path.startswith(f"{temporary}/")]
    devices = [] if kernel.capabilities().dm else [line.name for line in kernel.dm_names()]
    left = [name for name in devices if name.startswith("byre-example-")]
    assert (list(temporary.iterdir()), loops, left) == ([], [], [])
    return told


def test_every_example_is_run() -> None:
    there = {path.name for path in EXAMPLES.iterdir() if not path.name.startswith(("_", "."))}
    assert there == {*RUNS, WITH_A_LOG, WITH_STAND_INS}


@pytest.mark.parametrize("name", [name for name in RUNS if name != "microvm"])
def test_the_example_works_on_this_host(name: str, tmp_path: Path) -> None:
    if shutil.which("mke2fs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip("mke2fs is missing: Debian package e2fsprogs")
    check_example(name, tmp_path)


@pytest.mark.timeout(TIMEOUT_S + 60)
def test_a_microvm_sleeps_wakes_and_is_forked_on_this_host(tmp_path: Path) -> None:
    if missing := vm.missing_packages():
        pytest.skip(f"Debian packages are missing: {' '.join(missing)}")
    check_example("microvm", tmp_path, BYRE_MICROVM_KERNEL=str(ensure_kernel(vm.CACHE)))


@pytest.mark.kernel
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_the_python_api_works_on_device_mapper(folder: Path) -> None:
    """Only this one in the guest: the others start `byre` a dozen times, seconds each."""
    check_example("01_python_api.py", folder)


@pytest.mark.kernel
@pytest.mark.timeout(NESTED_S + 60)
def test_a_microvm_wakes_on_another_snapshot(folder: Path) -> None:
    """Emulated inside of an emulated machine: it goes on from what was booted on the host."""
    assert TEMPLATE.exists(), "on the host: python -m tests.kernel.microvm"
    words = ("--template", str(TEMPLATE))
    told = check_example("microvm", folder, *words, timeout_s=NESTED_S)
    assert "driver dm-snapshot" in told
    moved = re.search(r"restored on \S+ \((\d+:\d+)\); it was on \S+ \((\d+:\d+)\)", told)
    assert moved is not None
    assert moved[1] != moved[2]

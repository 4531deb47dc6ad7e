"""Each example runs as its reader would run it, ends well, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from reconciler.kernel.linux import LinuxKernel
from tests.kernel import vm
from tests.kernel.image import ensure_kernel

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT_S = 540
"""In the slow guest every start of `byre` takes seconds."""
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


def check_example(name: str, temporary: Path, **environment: str) -> str:
    """Run an example; returns what it told."""
    temporary = temporary.resolve()
    scripts = sysconfig.get_path("scripts")
    done = subprocess.run(
        RUNS[name],
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
        timeout=TIMEOUT_S,
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


def check_microvm(temporary: Path) -> str:
    """Run a machine, on the kernel that the kernel tests boot; returns what it told."""
    kernel = ensure_kernel(vm.CACHE)
    return check_example("microvm", temporary, BYRE_MICROVM_KERNEL=str(kernel))


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
    check_microvm(tmp_path)


@pytest.mark.kernel
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_the_python_api_works_on_device_mapper(folder: Path) -> None:
    """Only this one in the guest: the others start `byre` a dozen times, seconds each."""
    check_example("01_python_api.py", folder)

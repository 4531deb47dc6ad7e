"""The harness around the virtual machine: what it runs, and that nothing is lost unseen."""

import shlex
from pathlib import Path

import pytest

from tests.kernel import completeness, image, vm

JUNIT = """\
<testsuites><testsuite name="pytest">
  <testcase classname="tests.kernel.test_a" name="test_passes" />
  <testcase classname="tests.kernel.test_a" name="test_fails"><failure message="no" /></testcase>
  <testcase classname="tests.kernel.test_a" name="test_skipped">
    <skipped type="pytest.skip" message="no udevd" />
  </testcase>
  <testcase classname="tests.kernel.test_a" name="test_expected_to_fail">
    <skipped type="pytest.xfail" message="a known quirk" />
  </testcase>
  <testcase classname="tests.kernel.test_b.TestDisk" name="test_life[real-a::b]" />
</testsuite></testsuites>
"""


@pytest.mark.parametrize(
    "name",
    [
        "tests/kernel/test_a.py::test_passes",
        "tests/kernel/test_a.py::test_fails",
        "tests/kernel/test_a.py::test_expected_to_fail",
        "tests/kernel/test_b.py::TestDisk::test_life[real-a::b]",
    ],
)
def test_a_test_that_passed_failed_or_was_expected_to_fail_has_run(name: str) -> None:
    assert completeness.not_run([name], JUNIT) == []


@pytest.mark.parametrize(
    "name",
    [
        "tests/kernel/test_a.py::test_skipped",
        "tests/kernel/test_a.py::test_never_reached",
        "tests/kernel/test_b.py::TestDisk::test_life[real-c]",
        "tests/kernel/test_c.py::test_passes",
    ],
)
def test_a_test_that_was_skipped_or_is_not_in_the_report_has_not_run(name: str) -> None:
    assert completeness.not_run([name], JUNIT) == [name]


def test_tests_that_did_not_run_are_named_in_their_order() -> None:
    names = [f"tests/kernel/test_c.py::test_{n}" for n in (3, 1, 2)]
    assert completeness.not_run(names, JUNIT) == names


def test_the_kernel_tests_are_collected_on_the_host() -> None:
    assert "tests/kernel/test_environment.py::test_udevd_answers" in completeness.collect()


def test_the_real_kernel_package_is_read_from_the_meta_package() -> None:
    answer = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n"
    assert image.newest_package(answer) == "linux-image-6.1.0-56-amd64"


@pytest.mark.parametrize("answer", ["", "linux-image-amd64\n  Depends: linux-image-generic\n"])
def test_an_unknown_kernel_package_is_an_error_with_a_hint(answer: str) -> None:
    with pytest.raises(image.ImageError, match="apt-get update"):
        image.newest_package(answer)


def test_a_kernel_that_is_there_is_used_without_asking_anyone(tmp_path: Path) -> None:
    kernel = tmp_path / "linux-image-6.1.0-1-amd64" / "boot" / "vmlinuz-6.1.0-1-amd64"
    kernel.parent.mkdir(parents=True)
    kernel.touch()
    assert image.ensure_kernel(tmp_path) == kernel


def test_the_guest_runs_the_command_as_it_was_given() -> None:
    command = ["sh", "-c", "echo 'two  words'; exit 3"]
    script = vm.guest_script(command, out=Path("/some where/out"), share=Path("/tmp/b/out"))
    assert shlex.join(command) in script.splitlines()


def test_a_folder_that_the_guest_would_not_see_is_refused() -> None:
    with pytest.raises(vm.VmError, match="file system of its own"):
        vm.check_visible(Path("/dev/shm/repository"))


@pytest.mark.parametrize(
    ("script", "timeout_s", "expected"),
    [
        ("echo up", 60, vm.End.ITSELF),
        ("touch cut; sleep 600", 60, vm.End.CUT),
        ("sleep 600", 1, vm.End.DEADLINE),
    ],
)
def test_a_machine_ends_by_itself_or_is_killed_for_a_reason(
    tmp_path: Path, script: str, timeout_s: float, expected: vm.End
) -> None:
    command = ["sh", "-c", f"cd {shlex.quote(str(tmp_path))}; echo $$ >pid; {script}"]
    end = vm.stream(
        command,
        log=tmp_path / "log",
        base=tmp_path,
        timeout_s=timeout_s,
        cut=(tmp_path / "cut").exists,
    )
    assert end is expected
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()


def test_bootstrap_and_harness_name_the_same_debian_packages() -> None:
    lines = (vm.REPOSITORY / "just").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("vm_packages="))
    assert tuple(line.partition("=")[2].strip('"').split()) == vm.PACKAGES

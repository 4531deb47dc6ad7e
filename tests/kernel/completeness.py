"""Check that every kernel test really ran in the VM: a test that did not run must not look passed.

    python -m tests.kernel.completeness JUNIT_XML

The tests that `pytest -m kernel` collects on the host are compared with those that the guest's
JUnit file says were run. Skipped is not run; a test that was expected to fail has run. Whether the
tests passed is not looked at: pytest's own exit code says so.
"""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

COLLECT = (sys.executable, "-m", "pytest", "-m", "kernel", "--collect-only", "-q")
COLLECT_TIMEOUT_S = 300


class CollectError(Exception):
    """pytest could not collect the tests on the host; the message is its output."""


def main() -> int:
    """Compare, and say what is missing; 0 if every collected test ran, else 1."""
    (report,) = sys.argv[1:]
    try:
        collected = collect()
    except CollectError as error:
        print(f"kernel tests could not be collected on the host:\n{error}", file=sys.stderr)
        return 1
    missing = not_run(collected, Path(report).read_text(encoding="utf-8"))
    for name in missing:
        print(f"did not run in the VM: {name}", file=sys.stderr)
    print(f"{len(collected) - len(missing)} of {len(collected)} kernel tests ran in the VM")
    return 1 if missing or not collected else 0


def collect() -> list[str]:
    """Return the ids of all kernel tests, as collected on this host.

    Raises:
        CollectError: pytest failed, or found none.
    """
    done = subprocess.run(
        COLLECT, capture_output=True, text=True, timeout=COLLECT_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise CollectError(done.stdout + done.stderr)
    return [line for line in done.stdout.splitlines() if "::" in line]


def not_run(collected: Iterable[str], junit_xml: str) -> list[str]:
    """Return those of the `collected` ids that the JUnit text does not show as run, in order."""
    # Written by our own pytest in our own guest: nothing hostile is parsed here.
    cases = ElementTree.fromstring(junit_xml).iter("testcase")  # noqa: S314
    ran = {(case.get("classname"), case.get("name")) for case in cases if _was_run(case)}
    return [name for name in collected if _junit_name(name) not in ran]


def _was_run(case: ElementTree.Element) -> bool:
    return all(skipped.get("type") == "pytest.xfail" for skipped in case.iter("skipped"))


def _junit_name(node_id: str) -> tuple[str, str]:
    """Turn ``tests/a/test_b.py::TestC::test_d[x]`` into its class and its name in a JUnit file.

    The class is ``tests.a.test_b.TestC``, the name ``test_d[x]``.
    """
    path_and_names, bracket, parameters = node_id.partition("[")
    path, *classes, test = path_and_names.split("::")
    module = path.removesuffix(".py").replace("/", ".")
    return ".".join([module, *classes]), test + bracket + parameters


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.fuzz`: atheris on every target, one after the other.

New inputs go to .cache/fuzz, never into the corpus: whoever finds one that is worth keeping puts it
into tests/fuzz/corpus by hand, small (`--minimise` helps). An input that broke a target is kept as
.cache/fuzz/TARGET/crash-…, and the exit code is 1.

Each target runs in a process of its own, because libFuzzer ends the process that it runs in.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import warnings
from typing import NoReturn

from tests.fuzz import CORPUS, REPOSITORY

FOUND = REPOSITORY / ".cache" / "fuzz"
INPUT_BYTES_MAX = 8192
INPUT_SECONDS_MAX = 10
MEMORY_MIB_MAX = 2048
MISSING = "atheris is not here: ./just fuzz gets it, where PyPI has a wheel of it (x86-64)"


def main() -> int:
    """Run what the command line says; returns the exit code."""
    arguments = parsed()
    if arguments.child:
        fuzz(arguments.targets[0], arguments.rest)
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - the child instruments it before

    wanted = arguments.targets or sorted(TARGETS)
    unknown = [name for name in wanted if name not in TARGETS]
    if unknown:
        print(f"no such target: {', '.join(unknown)}; there are: {', '.join(sorted(TARGETS))}")
        return 2
    broken = [name for name in wanted if run(name, arguments) != 0]
    print(f"targets: {len(wanted)}, broken: {', '.join(broken) or 'none'}")
    return 1 if broken else 0


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--minimise", action="store_true", help="merge what was found instead")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*")
    known, rest = parser.parse_known_args()
    known.rest = rest
    return known


def run(name: str, arguments: argparse.Namespace) -> int:
    """Fuzz one target in a process of its own; returns its exit code."""
    found = FOUND / name
    (found / "inputs").mkdir(parents=True, exist_ok=True)
    options = [f"-max_len={INPUT_BYTES_MAX}", f"-timeout={INPUT_SECONDS_MAX}",
               f"-rss_limit_mb={MEMORY_MIB_MAX}", f"-artifact_prefix={found}/",
               "-print_final_stats=1", "-verbosity=0"]  # fmt: skip
    if arguments.minimise:
        merged = found / "merged"
        merged.mkdir(exist_ok=True)
        folders = [merged, CORPUS / name, found / "inputs"]
        options.append("-merge=1")
    else:
        folders = [found / "inputs", CORPUS / name]
        options.append(f"-max_total_time={arguments.seconds}")
    print(f"--- {name}", flush=True)
    child = [sys.executable, "-m", "tests.fuzz", "--child", name, *options, *map(str, folders)]
    return subprocess.run(child, cwd=REPOSITORY, check=False).returncode


def fuzz(name: str, options: list[str]) -> NoReturn:
    """Hand this process to libFuzzer."""
    try:
        import atheris  # noqa: PLC0415 - it is not everywhere, and only this needs it
    except ImportError:
        sys.exit(MISSING)
    with atheris.instrument_imports(include=["reconciler", "statemachine", "ruamel", "tomllib"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - instrumented as it is imported
    warnings.simplefilter("error")  # as in the tests; set before, atheris itself would give some
    # To merge, libFuzzer starts this name again, by a shell.
    this = f"{shlex.quote(sys.executable)} -m tests.fuzz --child {name}"
    atheris.Setup([this, *options], TARGETS[name])
    atheris.Fuzz()
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())

"""What the code must look like where no other tool looks; each rule with its reason.

ruff, mypy and import-linter have the rest: docstrings of public things, types, import directions.
An exception to a rule stands here, with its reason, and nowhere else.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

import pytest

from tests.style import REPOSITORY

LINES_MAX: Final = 400
Node = TypeVar("Node", bound=ast.AST)


def sources(*folders: str) -> list[str]:
    """Return the Python files below some folders, by their paths in the repository."""
    found = (path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))
    return sorted(str(path.relative_to(REPOSITORY)) for path in found)


PACKAGES = sources("statemachine", "reconciler")
CODE = sources("statemachine", "reconciler", "tests", "docs", "examples")
TESTS = sources("tests")
OTHERS = ("Justfile", "just", "pyproject.toml", ".importlinter", ".ci/run")
PAGES = sorted(
    str(path.relative_to(REPOSITORY))
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md")
    for path in REPOSITORY.glob(pattern)
)


@cache
def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(text_of(name))


def test_the_rules_have_something_to_look_at() -> None:
    assert len(PACKAGES) > 60
    assert len(TESTS) > 20


# --- files ---------------------------------------------------------------------------------------


def test_a_file_is_short_enough_to_be_read_at_once() -> None:
    """Past 400 lines a file has more than one reason to change: look for the cut."""
    lengths = {name: len(text_of(name).splitlines()) for name in CODE}
    assert {name: length for name, length in lengths.items() if length > LINES_MAX} == {}


DOOR = re.compile(r"imported\s+by|one\s+to\s+import\s+it|See\s+the\s+package")
COMMANDS_WHY = "a command's module is imported by its name, from the table in app"
ANYBODY: Final[dict[str, str]] = {
    "reconciler/api.py": "the Python API: anybody may import it",
    **dict.fromkeys(sources("reconciler/cli"), COMMANDS_WHY),
}
"""Modules that do not say who may import them, and why."""


def test_a_module_says_what_it_does_and_who_may_import_it() -> None:
    """A stranger finds the room by its name, and the door by this sentence."""
    modules = [name for name in PACKAGES if not name.endswith("__init__.py")]
    assert [name for name in PACKAGES if not about(name)] == []
    silent = {name for name in modules if DOOR.search(about(name)) is None}
    assert sorted(silent - ANYBODY.keys()) == []


def about(name: str) -> str:
    return ast.get_docstring(tree_of(name)) or ""


def test_nothing_is_left_for_later() -> None:
    """What is to be done is an issue, where somebody sees it; what is not done is in the README."""
    later = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
    assert [name for name in (*CODE, *PAGES, *OTHERS) if later.search(text_of(name))] == []


def test_no_path_of_one_machine_is_in_the_code() -> None:
    """It works there and nowhere else."""
    private = re.compile(r"[\"' =](?:/wo" + r"rk/|/ho" + r"me/\w+/)")
    assert [name for name in (*CODE, *OTHERS) if private.search(text_of(name))] == []


# --- errors --------------------------------------------------------------------------------------

BROAD: Final[dict[str, str]] = {
    "statemachine/eventlog.py": "an error of a grouped commit goes to every caller of the group",
    "reconciler/workers.py": "the barrier around one disk's pass",
    "reconciler/chaos/runner.py": "whatever ends a run is what the run looks for",
}
"""Where everything may be caught, and why."""


def test_everything_is_caught_at_the_barriers_only() -> None:
    """Elsewhere it would hide a mistake; cleaning up and raising on is another thing."""
    broad = {
        name
        for name in PACKAGES
        for handler in nodes(name, ast.ExceptHandler)
        if catches_all(handler) and not raises_on(handler)
    }
    assert broad == BROAD.keys()


def catches_all(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")


def raises_on(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_no_error_is_told_by_its_text() -> None:
    """An errno is the same in every language and version; "busy" in a message is not."""
    compared = [(name, ast.unparse(each)) for name in PACKAGES for each in nodes(name, ast.Compare)]
    texts = [each for each in compared if "strerror" in each[1] or ".args[0]" in each[1]]
    assert texts == []


# --- the world outside ---------------------------------------------------------------------------

PROGRAMS: Final[dict[str, str]] = {
    "reconciler/demo.py": "makes an ext4, mounts it and writes to it, as a user would",
    "reconciler/demotools.py": "makes an ext4, mounts it and writes to it, as a user would",
    "reconciler/cli/demonstrating.py": "starts the programs of the demo",
    "reconciler/filenames.py": "asks debugfs for names: only e2fsprogs can read every ext4",
    "reconciler/resizing.py": "has e2fsprogs make an ext4 larger, which nobody should do anew",
}
SQLITE: Final[dict[str, str]] = {
    "reconciler/bench/appends.py": "times SQLite alone, beside the log",
    "reconciler/bench/longlog.py": "times SQLite alone, beside the log",
    "reconciler/bench/machine.py": "asks for SQLite's version; opens nothing",
    "reconciler/checkup/finding.py": "asks for SQLite's version; opens nothing",
    "statemachine/basetable.py": "knows a log of an older schema by SQLite's error",
    "statemachine/roster.py": "a temporary file for the records that a replay has no memory for",
    "statemachine/database.py": "opens the log and sorts SQLite's errors",
    "statemachine/schema.py": "makes the tables",
}
CLOCKS: Final[dict[str, str]] = {
    "reconciler/kernel/able.py": "how old its answer about the host's capabilities is",
    "reconciler/clock.py": "is the clock",
    "statemachine/eventlog.py": "the default of an argument; whoever has a clock gives it",
    "reconciler/bench/stopwatch.py": "is what the bench measures with",
    "reconciler/demo.py": "measures what it shows, and waits for a healing as a user would",
    "reconciler/cli/demonstrating.py": "tells how long the demo took",
    "reconciler/kernel/flushing.py": "ends a flush that takes too long, in a thread of its own",
    "reconciler/kernel/dm.py": "waits some ms for udev to let go, inside of one call of the port",
    "reconciler/kernel/loopdev.py": "waits some ms for another process, inside of one call",
    "reconciler/kernel/loopinfo.py": "waits some ms for dirty pages, inside of one call",
}
DICE: Final[dict[str, str]] = {
    "reconciler/bench/longlog.py": "which places of a log are looked at, from one seed",
    "reconciler/bench/story.py": "all dice of a story, from its seed",
    "reconciler/api.py": "hands `random.random` in",
    "reconciler/chaos/world.py": "all dice of a run, from its seed",
    "reconciler/daemon.py": "the jitter of the resync",
}
IOCTLS = "reconciler/kernel/"


@pytest.mark.parametrize(
    ("modules", "allowed", "why"),
    [
        ({"subprocess"}, PROGRAMS, "a program costs ten times the ioctl, and its output is text"),
        ({"sqlite3", "sqlite_utils"}, SQLITE, "one way in: whoever else writes breaks the chain"),
        ({"time"}, CLOCKS, "time comes in through the door, so that a test can move it"),
        ({"random"}, DICE, "chance comes in through the door, so that a test can choose it"),
        (
            {"pyinotify"},
            {"reconciler/watch/inotify.py": "the one"},
            "it is from 2015, and replaceable",
        ),
        ({"pyudev"}, {"reconciler/watch/uevents.py": "the one"}, "one eye, one module"),
        ({"transitions"}, {"statemachine/machine.py": "the one"}, "the table is in one file"),
    ],
)
def test_what_reaches_outside_is_in_few_places(
    modules: set[str], allowed: dict[str, str], why: str
) -> None:
    importers = {name for name in PACKAGES if modules & set(imported(name))}
    assert importers - allowed.keys() == set(), why


def test_the_kernel_is_changed_behind_its_port_only() -> None:
    """What goes by another way cannot be tested on the in-memory kernel. A lock is no change."""
    changing = {"fcntl.ioctl", "os.mknod", "os.symlink"}
    assert [name for name in callers(changing) if not name.startswith(IOCTLS)] == []


def test_nothing_is_printed_past_the_one_who_speaks() -> None:
    """Scripts read stdout, and it is a contract: `say` writes it, and the completion does."""
    assert callers({"print"}) == []
    speakers = [f"reconciler/cli/{name}.py" for name in ("completing", "ruling", "say")]
    assert callers({"sys.stdout.write"}) == speakers


def callers(functions: set[str]) -> list[str]:
    """Return the modules that call one of some functions."""
    return [
        name
        for name in PACKAGES
        if functions & {ast.unparse(call.func) for call in nodes(name, ast.Call)}
    ]


# --- units ---------------------------------------------------------------------------------------

NUMBERS: Final[dict[str, str]] = {
    "reconciler/bench/targets.py: bound": "the words beside it have the unit",
    "reconciler/bench/targets.py: value": "the words beside it have the unit",
    "reconciler/bench/page.py: value": "whatever is printed; its unit stands beside it",
    "reconciler/cli/timesvg.py: x": "units of the drawing, by SVG's own name",
    "reconciler/cli/timesvg.py: y": "units of the drawing, by SVG's own name",
    "reconciler/clock.py: timeout": "the name is threading's",
    "reconciler/config.py: low": "the bound of whatever is checked",
    "reconciler/config.py: high": "the bound of whatever is checked",
    "reconciler/config.py: value": "whatever is checked",
    "reconciler/space.py: share": "of a file system, 0 to 1",
    "reconciler/space.py: share_max": "of a file system, 0 to 1",
}


def test_a_fraction_of_something_says_of_what() -> None:
    """A float is seconds here, and its name says so; a size is never one."""
    found = [f"{name}: {each}" for name in PACKAGES for each in floats(name)]
    assert [each for each in found if not each.endswith("_s") and each not in NUMBERS] == []


def floats(name: str) -> Iterator[str]:
    """Yield the parameters and attributes of a module that are floats."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.arg) and is_float(node.annotation):
            yield node.arg
        if isinstance(node, ast.AnnAssign) and is_float(node.annotation):
            yield ast.unparse(node.target).rpartition(".")[2].lower()


def is_float(annotation: ast.expr | None) -> bool:
    return annotation is not None and ast.unparse(annotation) in ("float", "float | None")


# --- tests ---------------------------------------------------------------------------------------


def test_a_skipped_test_says_why() -> None:
    """A test that silently does not run proves nothing and looks as if it did."""
    calls = [(name, call) for name in TESTS for call in nodes(name, ast.Call)]
    silent = [f"{name}:{call.lineno}" for name, call in calls if skips_silently(call)]
    assert silent == []


def skips_silently(call: ast.Call) -> bool:
    function = ast.unparse(call.func)
    reasons = [word.value for word in call.keywords if word.arg == "reason"]
    if function in ("pytest.skip", "pytest.xfail"):
        return not any(map(is_text, [*call.args, *reasons]))
    if function in ("pytest.mark.skipif", "pytest.mark.xfail"):
        return not any(map(is_text, reasons))
    return function == "pytest.mark.skip"  # say when it runs: skipif


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr | ast.Name) or bool(
        isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip()
    )


def test_a_fake_is_used_and_not_a_mock() -> None:
    """A mock agrees with its author; the in-memory kernel is held to the real one."""
    mocks = {"unittest", "mock"}
    assert [name for name in TESTS if mocks & set(imported(name))] == []


def test_a_file_of_tests_says_what_they_show() -> None:
    """Its name says of what; this sentence says what is true of it."""
    files = [name for name in TESTS if Path(name).name.startswith("test_")]
    assert [name for name in files if not about(name)] == []


# --- the exceptions themselves -------------------------------------------------------------------


def test_an_exception_is_for_a_file_that_exists() -> None:
    """One for a file that is gone would let in the next one of its name."""
    exceptions = {**ANYBODY, **BROAD, **PROGRAMS, **SQLITE, **CLOCKS, **DICE}
    assert [name for name in exceptions if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        ("except Exception: pass", True),
        ("except: pass", True),
        ("except OSError: pass", False),
        ("except BaseException:\n    undo()\n    raise", False),
    ],
)
def test_a_barrier_is_told_from_a_clean_up(handler: str, expected: object) -> None:
    [found] = walk(ast.parse(f"try:\n    pass\n{handler}"), ast.ExceptHandler)
    assert expected == (catches_all(found) and not raises_on(found))


# --- helpers -------------------------------------------------------------------------------------


def walk(tree: ast.AST, kind: type[Node]) -> Iterator[Node]:
    return (node for node in ast.walk(tree) if isinstance(node, kind))


def nodes(name: str, kind: type[Node]) -> Iterator[Node]:
    return walk(tree_of(name), kind)


def imported(name: str) -> Iterator[str]:
    """Yield the modules that a file imports, wherever in it, but not those for types only."""
    for node in runtime(tree_of(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def runtime(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from runtime(node)

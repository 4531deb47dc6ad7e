"""What a command that only asks does not import: half of its time would go there.

Counted, not timed: a module that is imported is there, on whatever machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from statemachine.eventlog import EventLog
from tests.unit.events_made import declaration

PROGRAM = """
import sys
before = set(sys.modules)
from reconciler.cli.app import run
try:
    run(sys.argv[1:])
finally:
    sys.stderr.write("\\n".join(set(sys.modules) - before))
"""
"""What was there before is not counted: what measures a program imports things as well."""
NOT_TO_SHOW_DISKS = {
    "cattrs": "it makes JSON of what is written; reading goes without",
    "reconciler.api": "it brings the reconciler along",
    "reconciler.config": "settings, for a root that has some",
    "reconciler.kernel.linux": "the kernel, for who changes something or asks it",
    "reconciler.requester": "who asks, for who asks for something",
    "rich": "tables",
    "sqlite_utils": "the schema, for who makes a log",
    "statemachine.eventlog": "the way into the log",
    "statemachine.observed": "what the kernel shows",
    "statemachine.payloads": "the classes of all events",
    "statemachine.projection": "what events make of records",
    "tomllib": "settings",
    "transitions": "the table as a machine, for who fires a trigger",
}
"""Each module, and what it is for."""
OF_EVENTS = {"statemachine.payloads", "statemachine.observed", "statemachine.projection"}
"""Who looks back reads events, and may make records of them."""
OWN_MODULES_MAX = 45
"""A little more than there are: each takes a part of a millisecond."""


@pytest.fixture
def root(folder: Path) -> Path:
    with EventLog(folder / "byre.db") as log:
        log.append([declaration("sb-1"), declaration("sb-2")])
    return folder


def modules_of(*words: str | Path) -> tuple[str, set[str]]:
    """Return what a command printed, and what it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, set(done.stderr.split())


def test_to_show_disks_nothing_is_imported_that_only_other_commands_need(root: Path) -> None:
    said, modules = modules_of("--root", root, "get", "-o", "json")
    assert [disk["name"] for disk in json.loads(said)] == ["sb-1", "sb-2"]
    assert {each: why for each, why in NOT_TO_SHOW_DISKS.items() if each in modules} == {}
    own = {each for each in modules if each.partition(".")[0] in ("reconciler", "statemachine")}
    assert "statemachine.logreader" in own
    assert len(own) <= OWN_MODULES_MAX, sorted(own)


@pytest.mark.parametrize(
    "words",
    [
        ("history", "-o", "jsonl"),
        ("history", "sb-1", "-o", "json", "--summary"),
        ("timeline", "sb-1", "-o", "json"),
    ],
)
def test_to_look_back_nothing_is_imported_that_changes_something(
    root: Path, words: tuple[str, ...]
) -> None:
    said, modules = modules_of("--root", root, *words)
    assert said
    assert (NOT_TO_SHOW_DISKS.keys() - OF_EVENTS) & modules == set()

"""The documentation is whole, and says what the code says.

What is generated is fresh by comparison; what is written by hand is checked for having an entry for
everything that it should speak of. Whether it is well written, no test can tell.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from docs import generate
from reconciler.cli.app import cli
from statemachine import specreader
from statemachine.conditions import ConditionType
from statemachine.errors import ByreError
from statemachine.events import EventType
from statemachine.machine import Desired, State, Trigger
from statemachine.observed import SnapshotHealth
from statemachine.schema import DISK_COLUMNS, EVENT_COLUMNS
from statemachine.spec import DriverChoice
from tests.style import REPOSITORY

REFERENCE = "docs/reference/"
CONDITIONS = REFERENCE + "conditions-and-exit-codes.md"
PAGES = sorted(
    str(page.relative_to(REPOSITORY))
    for folder in (REPOSITORY, *(REPOSITORY / "docs").rglob("*/"), REPOSITORY / "docs")
    for page in folder.glob("*.md")
)
DECISIONS = [page for page in PAGES if page.startswith("docs/decisions/")]
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
# A path of this machine or of a person's home; what an example may name is anywhere else.
PRIVATE_PATH = re.compile(r"/(?:work|home|root|Users)/\w+|/tmp/pytest-of")


@cache
def read(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def test_there_are_pages() -> None:
    assert {"README.md", "CHANGELOG.md", "docs/README.md"} < set(PAGES)
    assert len(DECISIONS) >= 12


# --- generated -----------------------------------------------------------------------------------


def test_what_is_generated_is_fresh() -> None:
    assert list(generate.stale_pages()) == [], "run `just docs`"


def test_a_page_without_the_marks_of_its_parts_is_refused() -> None:
    page = "<!-- generated: edges -->\n"
    with pytest.raises(generate.PageError, match="expected one pair of marks for each of edges"):
        generate.filled("page.md", page, {"edges": "a table"})


def test_a_page_is_filled_between_its_marks_only() -> None:
    page = "before\n<!-- generated: edges -->\nold\n<!-- end: edges -->\nafter\n"
    filled = generate.filled("page.md", page, {"edges": "new\n"})
    expected = "before\n<!-- generated: edges -->\n\nnew\n\n<!-- end: edges -->\nafter\n"
    assert filled == expected
    assert generate.filled("page.md", filled, {"edges": "new"}) == expected


# --- everything has its entry --------------------------------------------------------------------


def commands(group: click.Group, context: click.Context) -> Iterator[click.Context]:
    """Every command and group below a group."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        yield inner
        if isinstance(command, click.Group):
            yield from commands(command, inner)


def is_shown(parameter: click.Parameter) -> bool:
    """Tell whether a parameter is an option that the help shows."""
    return isinstance(parameter, click.Option) and not parameter.hidden


COMMANDS = list(commands(cli, click.Context(cli, info_name="byre")))


@pytest.mark.parametrize("context", COMMANDS, ids=lambda context: context.command_path)
def test_a_command_is_documented_with_its_options_and_an_example(context: click.Context) -> None:
    heading = f"### `{context.command_path}`\n"
    page = read(REFERENCE + "commands.md")
    assert heading in page
    section = page.partition(heading)[2].partition("\n### ")[0].partition("\n## ")[0]
    for parameter in context.command.params:
        for name in parameter.opts if is_shown(parameter) else ():
            assert name in section
    assert f"```sh\n{context.command_path}" in section
    assert context.command.help


@pytest.mark.parametrize("context", COMMANDS, ids=lambda context: context.command_path)
def test_an_option_says_what_it_does_and_shows_its_default(context: click.Context) -> None:
    for parameter in context.command.params:
        if not isinstance(parameter, click.Option):
            continue
        assert parameter.help, f"{parameter.opts} has no help"
        default = parameter.get_default(context)
        # A flag that is off, an empty text and an option without a default go without saying.
        telling = (
            bool(default) and isinstance(default, str | int | float) and not parameter.required
        )
        assert bool(parameter.show_default) or not telling, f"{parameter.opts} hides its default"


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("states.md", [each.value for kind in (State, Trigger, Desired) for each in kind]),
        ("events.md", [each.value for each in EventType]),
        ("conditions-and-exit-codes.md", [each.value for each in ConditionType]),
        ("log-format.md", [*EVENT_COLUMNS, *DISK_COLUMNS, "meta", "root_id"]),
        ("spec.md", [*specreader.FIELDS, *[each.value for each in DriverChoice]]),
        ("spec.md", [each.value for each in Desired]),
    ],
)
def test_every_word_of_the_code_is_on_its_page(page: str, words: list[str]) -> None:
    assert [word for word in words if f"`{word}`" not in read(REFERENCE + page)] == []


def test_every_field_of_get_is_documented() -> None:
    tree = ast.parse(read("reconciler/cli/describe.py"))
    dicts = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    names = {key.value for node in dicts for key in node.keys if isinstance(key, ast.Constant)}
    page = read(REFERENCE + "commands.md")
    assert len(names) > 10
    assert [name for name in sorted(map(str, names)) if f"`{name}`" not in page] == []


@pytest.mark.parametrize("page", ["events.md", "python-api.md"])
def test_every_field_says_what_it_means(page: str) -> None:
    rows = re.findall(r"^\| `.*\|$", read(REFERENCE + page), re.MULTILINE)
    assert rows
    assert [row for row in rows if row.endswith("|  |")] == []


def errors(kind: type[ByreError] = ByreError) -> Iterator[type[ByreError]]:
    yield kind
    for inner in kind.__subclasses__():
        if inner.__module__ == kind.__module__:
            yield from errors(inner)


@pytest.mark.parametrize("kind", list(errors()), ids=lambda kind: kind.__name__)
def test_every_error_is_documented_with_its_exit_code(kind: type[ByreError]) -> None:
    row = rf"^\| (?:· )*`{kind.__name__}` \| {kind.exit_code} \|"
    assert re.search(row, read(CONDITIONS), re.MULTILINE)
    assert f"\n| {kind.exit_code} |" in read(CONDITIONS)


def test_every_reason_is_documented() -> None:
    found = {f"snapshot-{health}" for health in SnapshotHealth if health != SnapshotHealth.VALID}
    for source in (REPOSITORY / "reconciler").rglob("*.py"):
        if "sim" not in source.parts:
            found |= reasons(ast.parse(source.read_text(encoding="utf-8")))
    assert {"in-use", "cow-missing"} <= found
    assert [reason for reason in sorted(found) if f"`{reason}`" not in read(CONDITIONS)] == []


def reasons(tree: ast.AST) -> set[str]:
    """Return the literal `kind=` and `fault_kind=` of the calls in a module, holders aside."""
    return {
        word.value.value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and not is_holder(call)
        for word in call.keywords
        if word.arg in ("kind", "fault_kind")
        and isinstance(word.value, ast.Constant)
        and isinstance(word.value.value, str)
    }


def is_holder(call: ast.Call) -> bool:
    """A holder, a file and an orphan have kinds, too, which are no reasons."""
    return ast.unparse(call.func).rpartition(".")[2] not in {
        "BlockedError",
        "PermanentError",
        "TransientError",
        "Appraisal",
        "evolve",
    }


# --- every page ----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for link in LINK.findall(read(page)):
        target, _, anchor = link.partition("#")
        if target.startswith("https://"):
            continue
        assert not target.startswith(("/", "http:")), f"{link} is not relative"
        path = (REPOSITORY / page).parent / target if target else REPOSITORY / page
        assert path.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(path), f"{link} has no such heading"


def anchors(page: Path) -> set[str]:
    """Return what the headings of a page are called in links, as GitHub makes them."""
    headings = HEADING.findall(page.read_text(encoding="utf-8"))
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_path_of_one_machine(page: str) -> None:
    assert PRIVATE_PATH.findall(read(page)) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_source_that_a_page_names_exists(page: str) -> None:
    named = re.findall(r"`((?:statemachine|reconciler|tests|docs)/[\w/.-]+)`", read(page))
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_one_title_and_lines_that_fit(page: str) -> None:
    without_blocks = re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)
    by_hand = re.sub(r"<!-- generated.*?<!-- end", "", without_blocks, flags=re.DOTALL)
    assert len(re.findall(r"^# ", without_blocks, re.MULTILINE)) == 1
    prose = [line for line in by_hand.splitlines() if not line.startswith(("|", "- ["))]
    assert [line for line in prose if len(line) > 110 and "](" not in line] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_every_page_can_be_reached_from_the_index(page: str) -> None:
    index = read("docs/README.md")
    assert page == "docs/README.md" or f"]({page.removeprefix('docs/')})" in index


def test_every_page_that_the_code_names_exists() -> None:
    for folder in ("statemachine", "reconciler", "tests"):
        for source in (REPOSITORY / folder).rglob("*.py"):
            named = re.findall(r"\bdocs/[\w/-]+\.md", source.read_text(encoding="utf-8"))
            for page in named:
                assert (REPOSITORY / page).exists(), f"{source.name} names {page}"


@pytest.mark.parametrize("page", DECISIONS)
def test_a_decision_has_context_choice_and_consequences(page: str) -> None:
    number = Path(page).name[:4]
    assert HEADING.findall(read(page))[1:] == ["Context", "Choice", "Consequences"]
    assert read(page).startswith(f"# {number}: ")


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = [int(Path(page).name[:4]) for page in DECISIONS]
    assert numbers == list(range(1, len(DECISIONS) + 1))


# --- what hurt others ----------------------------------------------------------------------------

FAILURES = "docs/explanation/failures.md"
SEEDS = "docs/explanation/seeds.md"
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)((?:::\w+)*)`")


def test_each_of_the_35_failures_has_its_row() -> None:
    rows = re.findall(r"^\| (\d+) \|", read(FAILURES), re.MULTILINE)
    assert [str(number) for number in range(1, 36)] == rows


@pytest.mark.parametrize(
    ("file", "names"),
    sorted({*NAMED_TEST.findall(read(FAILURES)), *NAMED_TEST.findall(read(SEEDS))}),
)
def test_a_test_that_the_pages_of_failures_and_of_seeds_name_exists(file: str, names: str) -> None:
    text = read(file)
    for name in names.split("::")[1:]:
        assert re.search(rf"(?:def|class) {name}\b", text), f"{file} has no {name}"

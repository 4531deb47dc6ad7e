"""The generated parts of the pages, each made from the code that it describes.

`MAKERS` names them all. A maker takes nothing and returns Markdown. Nothing here changes anything:
the database of the log is made in memory to read its schema off it.

What this module does not do: it knows no page and no file but the sources that it reads.
May be imported by `docs/generate.py` and tests.
"""

from __future__ import annotations

import ast
import configparser
import errno
import inspect
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import click

from docs.meanings import COMMON_MEANINGS, MEANINGS

REPOSITORY: Final = Path(__file__).resolve().parents[1]
Failing = TypeVar("Failing", bound=Exception)


# --- commands ------------------------------------------------------------------------------------


def commands() -> str:
    """Describe every command, from click's own help."""
    from reconciler.cli.app import cli  # noqa: PLC0415 - only the parts that are asked for

    context = click.Context(cli, info_name="byre", max_content_width=10_000)
    return "\n".join(_command(cli, context))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    path = context.command_path
    pieces = " ".join([path, *command.collect_usage_pieces(context)])
    yield f"{'##' if context.parent is None else '###'} `{path}`\n"
    yield f"```text\n{pieces}\n```\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in parameter.opts:
            names, text = record
            variable = f" Environment: `{parameter.envvar}`." if parameter.envvar else ""
            yield f"- `{names}`: {' '.join(text.split())}{variable}"
    yield ""
    if command.epilog:
        lines = inspect.cleandoc(command.epilog.replace("\b", "")).splitlines()[1:]
        examples = "\n".join(line.strip() for line in lines)
        yield f"```sh\n{examples}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, "a group has the commands that it lists"
            yield from _command(inner, click.Context(inner, info_name=name, parent=context))


# --- states --------------------------------------------------------------------------------------


def edges() -> str:
    """Tabulate every edge of the state table."""
    from statemachine.machine import EDGES  # noqa: PLC0415

    return _table(
        ("trigger", "from", "to", "what it is"),
        [(f"`{edge.trigger}`", f"`{edge.source}`", f"`{edge.target}`", edge.why) for edge in EDGES],
    )


def desired() -> str:
    """Tabulate which states meet which wish, and the way there from `absent`."""
    from statemachine.machine import MEETS, State, path  # noqa: PLC0415

    return _table(
        ("desired", "is met by", "the way there from `absent`"),
        [
            (
                f"`{wish}`",
                ", ".join(f"`{state}`" for state in State if state in states),
                " → ".join(f"`{edge.trigger}`" for edge in path(State.ABSENT, wish) or ()),
            )
            for wish, states in MEETS.items()
        ],
    )


def diagram() -> str:
    """Draw the state table as a Mermaid diagram; drift is dashed by its name, not by a line."""
    from statemachine.machine import DRIFT_TRIGGERS, EDGES, State  # noqa: PLC0415

    lines = [f"    [*] --> {State.ABSENT}"]
    for edge in EDGES:
        mark = " (drift)" if edge.trigger in DRIFT_TRIGGERS else ""
        lines.append(f"    {edge.source} --> {edge.target}: {edge.trigger}{mark}")
    lines.append(f"    {State.REMOVED} --> [*]")
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


# --- events --------------------------------------------------------------------------------------


def events() -> str:
    """Describe every type of event and the fields of its `data`."""
    from statemachine.events import SCHEMA_VERSIONS  # noqa: PLC0415
    from statemachine.payloads import PAYLOADS  # noqa: PLC0415

    classes = _classes("statemachine/diskfacts.py") | _classes("statemachine/hostfacts.py")
    classes |= _classes("statemachine/basefacts.py")
    found = []
    for event_type, kind in PAYLOADS.items():
        version = SCHEMA_VERSIONS.get(event_type, 1)
        found.append(
            f"### `{event_type}`\n\nSchema version {version}. {_fields(classes[kind.__name__])}"
        )
    return "\n\n".join(found)


def types() -> str:
    """Describe the classes that the fields of events are made of."""
    return "\n\n".join(
        f"### {node.name}\n\n{_fields(node)}"
        for node in (
            _classes("statemachine/asker.py")["Requester"],
            _classes("statemachine/fileidentity.py")["FileIdentity"],
            _classes("statemachine/basefacts.py")["Base"],
        )
    )


def _classes(source: str) -> dict[str, ast.ClassDef]:
    tree = ast.parse((REPOSITORY / source).read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _fields(node: ast.ClassDef) -> str:
    rows = []
    known = COMMON_MEANINGS | MEANINGS.get(node.name, {})
    for index, each in enumerate(node.body):
        if not isinstance(each, ast.AnnAssign) or not isinstance(each.target, ast.Name):
            continue
        default = f"`{ast.unparse(each.value)}`" if each.value is not None else "required"
        kind = ast.unparse(each.annotation)
        meaning = _text_after(node.body, index) or known.get(each.target.id, "")
        rows.append((f"`{each.target.id}`", f"`{kind}`", default, meaning))
    about = inspect.cleandoc(ast.get_docstring(node) or "")
    return f"{about}\n\n{_table(('field', 'type', 'default', 'meaning'), rows)}"


def _text_after(body: list[ast.stmt], index: int) -> str:
    """Return the string that stands right after a field, which is its docstring."""
    following = body[index + 1] if index + 1 < len(body) else None
    if not isinstance(following, ast.Expr) or not isinstance(following.value, ast.Constant):
        return ""
    return " ".join(str(following.value.value).split())


# --- errors --------------------------------------------------------------------------------------


def errors() -> str:
    """Tabulate every class of error, with its exit code."""
    from statemachine.errors import ByreError  # noqa: PLC0415

    rows = [
        (f"{'· ' * depth}`{kind.__name__}`", str(kind.exit_code), _first_line(kind))
        for depth, kind in _tree(ByreError)
    ]
    return _table(("error", "exit code", "meaning"), rows)


def errnos() -> str:
    """Tabulate which numbers of the kernel are transient and which are blocked."""
    from statemachine.errors import BLOCKED_ERRNOS, TRANSIENT_ERRNOS  # noqa: PLC0415

    def names(numbers: frozenset[int]) -> str:
        return ", ".join(f"`{errno.errorcode[number]}`" for number in sorted(numbers))

    rows = [
        ("transient", names(TRANSIENT_ERRNOS)),
        ("blocked", names(BLOCKED_ERRNOS)),
        ("permanent", "every other"),
    ]
    return _table(("consequence", "errno"), rows)


def _tree(kind: type[Failing], depth: int = 0) -> Iterator[tuple[int, type[Failing]]]:
    yield depth, kind
    for inner in kind.__subclasses__():
        if inner.__module__ == kind.__module__:
            yield from _tree(inner, depth + 1)


# --- the log -------------------------------------------------------------------------------------


def tables() -> str:
    """Show how the tables of the log are made."""
    return _sql("SELECT sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql NOT NULL")


def guards() -> str:
    """Show the triggers that keep `events` append-only."""
    return _sql("SELECT sql FROM sqlite_master WHERE type = 'trigger'")


def views() -> str:
    """Tabulate the views and their columns."""
    connection = _schema()
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'").fetchall()
    rows = []
    for (name,) in names:
        columns = connection.execute("SELECT name FROM pragma_table_info(?)", (name,)).fetchall()
        rows.append((f"`{name}`", ", ".join(f"`{column}`" for (column,) in columns)))
    connection.close()
    return _table(("view", "columns"), rows)


def _sql(query: str) -> str:
    connection = _schema()
    statements = [inspect.cleandoc(text) + ";" for (text,) in connection.execute(query)]
    connection.close()
    return "\n".join(["```sql", *statements, "```"])


def _schema() -> sqlite3.Connection:
    from statemachine import schema  # noqa: PLC0415

    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.migrate(connection)
    return connection


# --- the Python API ------------------------------------------------------------------------------


def api() -> str:
    """Describe the public methods of `Byre`, in the order of the source."""
    from reconciler.api import Byre  # noqa: PLC0415

    found = [f"## `Byre`\n\n{_doc(Byre)}\n\n```python\nByre{_signature(Byre)}\n```"]
    for name, method in vars(Byre).items():
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        found.append(
            f"### `{name}`\n\n```python\n{name}{_signature(method)}\n```\n\n{_doc(method)}"
        )
    found.append(f"## `Waited`\n\n{_fields(_classes('reconciler/outcome.py')['Waited'])}")
    return "\n\n".join(found)


def _signature(of: Callable[..., object]) -> str:
    text = str(inspect.signature(of)).replace("(self, ", "(").replace("(self)", "()")
    text = re.sub(r"<(\w+\.\w+): [^>]*>", r"\1", text)
    return re.sub(r"'(\w[^']*)'(?=[,)\]: =]|$)", r"\1", text)


def _doc(of: object) -> str:
    """Return a docstring with its Google sections as bold words and lists."""
    text = inspect.cleandoc(inspect.getdoc(of) or "")
    text = re.sub(r"^(Args|Returns|Raises|Attributes):$", r"**\1**\n", text, flags=re.MULTILINE)
    text = re.sub(r"^ {4}(?! )([^\n]*)", r"- \1", text, flags=re.MULTILINE)
    return re.sub(r"^ {6,}", "  ", text, flags=re.MULTILINE)


# --- the layers ----------------------------------------------------------------------------------


def layers() -> str:
    """List the contracts of `.importlinter`, in its own words."""
    config = configparser.ConfigParser()
    config.read(REPOSITORY / ".importlinter", encoding="utf-8")
    found = []
    for section in config.sections():
        contract = config[section]
        if not section.startswith("importlinter:contract:"):
            continue
        if contract["type"] == "layers":
            found.append(f"**{contract['name']}.**\n\n{_layers(contract)}")
        else:
            found.append(f"**{contract['name']}.**\n\n{_forbidden(contract)}")
    return "\n\n".join(found)


def _layers(contract: configparser.SectionProxy) -> str:
    container = contract.get("containers", "").strip()
    rows = []
    for line in contract["layers"].split("\n"):
        names = filter(None, (word.strip(" ()") for word in line.split("|")))
        rows += [(f"`{n}`", _about(f"{container}.{n}" if container else n)) for n in names]
        if line.strip():
            rows.append(("", ""))
    return _lines_of(rows)


def _lines_of(rows: list[tuple[str, str]]) -> str:
    """Number the layers; a row without a name ends one."""
    found, number, modules = [], 1, list[str]()
    for name, about in rows:
        if name:
            modules.append(f"{name}: {about}" if about else name)
            continue
        found.append(f"{number}. " + "\n   ".join(f"{module}  " for module in modules).rstrip())
        number, modules = number + 1, []
    return "\n".join(found)


def _forbidden(contract: configparser.SectionProxy) -> str:
    sources = ", ".join(f"`{name}`" for name in contract["source_modules"].split())
    targets = ", ".join(f"`{name}`" for name in contract["forbidden_modules"].split())
    return f"{sources} do not import {targets}."


def _about(module: str) -> str:
    """Return the first sentence of a module's docstring, without importing the module."""
    path = REPOSITORY / module.replace(".", "/")
    source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    if not source.exists():
        return ""
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n", maxsplit=1)[0].replace("\n", " ")


# --- figures -------------------------------------------------------------------------------------


def figures() -> str:
    """Tabulate what `just bench` measured last; nobody edits its figures by hand."""
    from reconciler.bench import page, results  # noqa: PLC0415

    data = REPOSITORY / "docs/explanation/performance.json"
    return page.markdown(results.from_json(data.read_text(encoding="utf-8"), source=data.name))


# --- helpers -------------------------------------------------------------------------------------


def _first_line(kind: type) -> str:
    return inspect.cleandoc(kind.__doc__ or "").splitlines()[0]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


MAKERS: Final[dict[str, Callable[[], str]]] = {
    "api": api,
    "commands": commands,
    "desired": desired,
    "diagram": diagram,
    "edges": edges,
    "errnos": errnos,
    "errors": errors,
    "events": events,
    "figures": figures,
    "guards": guards,
    "layers": layers,
    "tables": tables,
    "types": types,
    "views": views,
}
"""Every part by its name."""

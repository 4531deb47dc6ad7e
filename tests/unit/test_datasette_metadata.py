"""The questions that Datasette is given work on a real log, and speak of what there is."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from statemachine.names import LOG_NAME
from statemachine.schema import EVENT_COLUMNS
from tests.unit.cliworld import World

METADATA: Final = Path(__file__).parents[2] / "docs/how-to/datasette/metadata.yaml"
GIVEN: Final = {"disk": "sb-1"}


def database() -> dict[str, Any]:
    document = YAML(typ="safe").load(METADATA)
    found: dict[str, Any] = document["databases"][LOG_NAME.removesuffix(".db")]
    return found


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in which everything happened that is asked for."""
    folder = tmp_path_factory.mktemp("datasette")
    with pytest.MonkeyPatch.context() as patch:
        silent: Any = _Silent()
        world = World(folder, patch, silent)
        world.create("sb-1")
        world.kernel.remove_dm_by_hand("byre-sb-1")
        world.byre("run", "--once")
        with world.kernel.open("/dev/mapper/byre-sb-1"):
            world.byre("pause", "sb-1", "--wait", "--timeout", "0.2")
    return world.root / LOG_NAME


class _Silent:
    """Stands in for pytest's `capsys`, which lives for one test only."""

    def readouterr(self) -> Any:  # noqa: ANN401 - a pair of texts
        return type("Said", (), {"out": "", "err": ""})


@pytest.mark.parametrize("name", list(database()["queries"]))
def test_a_ready_question_is_answered(log: Path, name: str) -> None:
    query = database()["queries"][name]
    wanted = set(re.findall(r"(?<!:):(\w+)", re.sub(r"'[^']*'", "", query["sql"])))
    assert wanted == set(query.get("params", []))
    with contextlib.closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True)) as connection:
        [story] = connection.execute("SELECT max(correlation_id) FROM events").fetchone()
        values = {**GIVEN, "correlation": story[:8]}
        rows = connection.execute(query["sql"], values).fetchall()
    assert rows
    assert query["title"]


def test_every_table_and_column_that_is_described_is_there(log: Path) -> None:
    with contextlib.closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True)) as connection:
        for name, table in database()["tables"].items():
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info({name})")}
            assert columns
            named = {*table.get("columns", {}), *table.get("facets", [])}
            named |= {table[key] for key in ("sort", "sort_desc", "label_column") if key in table}
            assert named <= columns
    assert set(EVENT_COLUMNS) == set(database()["tables"]["events"]["columns"])

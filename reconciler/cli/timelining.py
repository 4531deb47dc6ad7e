"""`timeline`: the life of a disk at a glance, in the terminal, as SVG or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import click

from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.clock import SystemClock
from statemachine.errors import LogUnavailable, NoSuchDisk, UsageError
from statemachine.lives import PARTS_MAX, Life, TooManyParts, lives
from statemachine.logreader import LogReader
from statemachine.past import Past
from statemachine.questions import Question
from statemachine.utc import iso


@click.command(
    "timeline",
    epilog=options.epilog("byre timeline sb-1", "byre timeline sb-1 --generation 2 --svg sb-1.svg"),
)
@click.argument("name", shell_complete=options.complete_names)
@click.option("--generation", type=click.IntRange(min=1), help="Only this life of the disk.")
@click.option(
    "--svg",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw it into a file; one that is there is written over.",
)
@options.archives
@options.output("table", "json")
@click.pass_obj
def timeline_command(
    ctx: Context,
    *,
    name: str,
    generation: int | None,
    svg: Path | None,
    archives: tuple[Path, ...],
    output: str,
) -> None:
    """Show the life of a disk: its states by time, and where something went wrong."""
    with LogReader(ctx.root.log) as log, Past(log, archives) as past:
        if log.record(name) is None:
            raise NoSuchDisk(name)
        found = _lives(past, Question(disk=name, generation=generation))
    if not found:
        raise UsageError(f"{name} has no generation {generation}", hint="see `byre history`")
    if svg is not None:
        from reconciler.cli.timesvg import drawing  # noqa: PLC0415 - only with --svg

        _write(svg, drawing(name, found))
        say.person(f"{name}: drawn into {svg}")
    if output == "json":
        say.machine({"name": name, "generations": [_plain(life) for life in found]})
    elif svg is None:
        from reconciler.cli.timebars import show  # noqa: PLC0415 - rich is slow to import

        show(name, found)


def _lives(past: Past, question: Question) -> list[Life]:
    try:
        return lives(past.search(question), now=SystemClock().now_ns())
    except TooManyParts as error:
        msg = f"{question.disk} has more than {PARTS_MAX} states and marks, too many to draw"
        hint = "choose one life with --generation, or count with `byre history NAME --summary`"
        raise UsageError(msg, hint=hint) from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LogUnavailable(f"{path}: {error.strerror}", hint="choose another file") from error


def _plain(life: Life) -> dict[str, Any]:
    return {
        "generation": life.generation,
        "begin": iso(life.begin),
        "end": iso(life.end),
        "states": [
            {
                "state": span.state,
                "begin": iso(span.begin),
                "end": iso(span.end),
                "duration_ns": span.end - span.begin,
            }
            for span in life.spans
        ],
        "marks": [{**attrs.asdict(mark), "at": iso(mark.at)} for mark in life.marks],
    }

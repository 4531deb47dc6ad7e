"""`history`: what happened, to one disk or to the whole root; chosen, ordered, page by page."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import attrs
import click

from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.cli.asking import asking
from reconciler.cli.printing import Printer, printer
from statemachine.errors import NoSuchDisk, UsageError
from statemachine.events import Event
from statemachine.logreader import LogReader
from statemachine.names import HOST
from statemachine.past import Past
from statemachine.questions import Question


@click.command(
    "history",
    epilog=options.epilog(
        "byre history sb-1",
        "byre history sb-1 --newest-first --limit 20",
        "byre history --since '1 hour ago' --type transition -o jsonl",
        "byre history --outcome failed --text 'in use' -o csv",
        "byre history --summary --since 1d",
        "byre history sb-1 --archive /srv/audit/2026-q3.byre",
    ),
)
@click.argument("name", required=False, shell_complete=options.complete_names)
@asking
@options.archives
@click.option("--newest-first", is_flag=True, help="Begin with what happened last.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="At most so many.  [default: all]"
)
@click.option("--follow", is_flag=True, help="Go on with what happens from now on.")
@click.option("--summary", is_flag=True, help="Counts and durations instead of events.")
@options.output("table", "json", "jsonl", "csv")
@click.pass_obj
def history_command(
    ctx: Context,
    *,
    name: str | None,
    question: Question,
    archives: tuple[Path, ...],
    newest_first: bool,
    limit: int | None,
    follow: bool,
    summary: bool,
    output: str,
) -> None:
    """Tell what happened, oldest first.

    With --archive it begins with what was moved out of the log; the archives must join it.
    """
    question = attrs.evolve(question, disk=name, newest_first=newest_first)
    _refuse_senseless(question, limit=limit, follow=follow, summary=summary, output=output)
    with LogReader(ctx.root.log) as log, Past(log, archives) as past:
        if name is not None and name != HOST and log.record(name) is None:
            raise NoSuchDisk(name)
        if left_out := past.left_out(question):
            told = f"events up to {left_out} are in archives: name them with --archive"
            say.person(f"{told} (`byre log info`)")
        if summary:
            from reconciler.cli.summing import tell_summary  # noqa: PLC0415 - only with --summary

            tell_summary(past.search(question), output)
        elif follow:
            _follow(log, past, question, printer("jsonl" if output == "json" else output))
        else:
            _tell(past.search(question), question, limit, printer(output))


def _refuse_senseless(
    question: Question, *, limit: int | None, follow: bool, summary: bool, output: str
) -> None:
    paged = question.newest_first or limit is not None or question.before is not None
    if follow and (paged or summary):
        msg = (
            "--follow has no end: it does not go with --newest-first, --limit, --before, --summary"
        )
        raise UsageError(msg)
    if summary and (question.newest_first or limit is not None):
        raise UsageError("--summary is of all that fits: it has no --newest-first and no --limit")
    if summary and output not in ("table", "json"):
        raise UsageError(f"--summary is a table or json, not {output}")


def _tell(found: Iterator[Event], question: Question, limit: int | None, told: Printer) -> None:
    """Print the events; when a limit leaves some out, say how to go on."""
    seq = 0
    for event in itertools.islice(found, limit):
        told.event(event)
        seq = event.seq
    told.end()
    if limit is not None and next(found, None) is not None:
        option = "--before" if question.newest_first else "--after"
        say.person(f"there are more; go on with {option} {seq}")


def _follow(log: LogReader, past: Past, question: Question, told: Printer) -> None:
    from reconciler.watch.follow import LogFollower, changes  # noqa: PLC0415 - only with --follow

    with LogFollower(log.path) as follower:
        after = question.after
        for seq in changes(follower, log.last_seq):
            for event in past.search(attrs.evolve(question, after=after)):
                after = event.seq
                told.event(event)
            told.flush()
            after = max(after, seq)

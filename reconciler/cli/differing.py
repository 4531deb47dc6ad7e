"""`diff-log`: what changed between two moments of the log."""

from __future__ import annotations

import json

import attrs
import click

from reconciler.cli import options, say
from reconciler.cli.app import Context
from statemachine import changes, timetravel
from statemachine.logreader import LogReader


@click.command(
    "diff-log",
    epilog=options.epilog("byre diff-log '2 hours ago' 'now'", "byre diff-log 1200 1300 -o json"),
)
@click.argument("before", metavar="A")
@click.argument("after", metavar="B", default="now")
@options.output("table", "json")
@click.pass_obj
def diff_log_command(ctx: Context, *, before: str, after: str, output: str) -> None:
    """Show what changed between two moments, per disk and field; B is now if it is not given.

    A and B are the seq of an event, a time, or `now`.
    """
    with LogReader(ctx.root.log) as log:
        seqs = [_seq(log, before), _seq(log, after)]
        found = list(changes.between(log, *seqs))
    if output == "json":
        say.machine(
            {
                "before": seqs[0],
                "after": seqs[1],
                "disks": [attrs.asdict(each) for each in found],
            }
        )
        return
    rows = [
        (each.disk, each.change, field.field, _text(field.before), _text(field.after))
        for each in found
        for field in each.fields
    ]
    say.table(("DISK", "CHANGE", "FIELD", "BEFORE", "AFTER"), rows)
    if not found:
        say.person(f"no disk differs between event {seqs[0]} and event {seqs[1]}")


def _seq(log: LogReader, text: str) -> int:
    if text == "now":
        return log.last_seq()
    if text.isdecimal():
        return int(text)
    return timetravel.seq_at(log, options.Moment().convert(text, None, None))


def _text(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

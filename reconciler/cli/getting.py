"""`get`: the disks as they are recorded, now or at an earlier moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from reconciler.api import Byre
from reconciler.cli import describe, options, say
from reconciler.cli.app import Context
from reconciler.outcome import is_gone
from statemachine.errors import NoSuchDisk
from statemachine.past import Past
from statemachine.projection import Record


@click.command(
    "get",
    epilog=options.epilog("byre get", "byre get sb-1 -o json", "byre get --at '2 hours ago'"),
)
@options.names(required=False)
@options.output("table", "wide", "json")
@click.option("--all", "everything", is_flag=True, help="Removed disks as well.")
@click.option("--at", type=options.Moment(), help="As it was at a time.")
@click.option("--at-seq", type=click.IntRange(min=0), help="As it was after an event.")
@options.archives
@click.option("--watch", is_flag=True, help="Show again whenever something changes.")
@click.pass_obj
def get_command(
    ctx: Context,
    *,
    names: tuple[str, ...],
    output: str,
    everything: bool,
    at: int | None,
    at_seq: int | None,
    archives: tuple[Path, ...],
    watch: bool,
) -> None:
    """Show disks; those that are named, or all that are not removed.

    What is shown of an earlier moment is what was recorded then; how much of a CoW file is used is
    always what it is now.
    """
    if watch and (at is not None or at_seq is not None):
        raise click.UsageError("--watch shows the present; it does not go with --at or --at-seq")
    with Byre(ctx.root.path, read_only=True) as byre:
        if not watch:
            if at is None and at_seq is None:
                records = _select(byre.log.records(), names, everything=everything)
            else:
                records = _earlier(byre, names, at, at_seq, archives, everything=everything)
            _show(byre, records, output)
            return
        for records in _changes(byre, names, everything=everything):
            _show(byre, records, "jsonl" if output == "json" else output)


def _select(records: Sequence[Record], names: Sequence[str], *, everything: bool) -> list[Record]:
    if not names:
        return [record for record in records if everything or not is_gone(record)]
    by_name = {record.name: record for record in records}
    for name in names:
        if name not in by_name:
            raise NoSuchDisk(name)
    return [by_name[name] for name in names]


def _earlier(
    byre: Byre,
    names: Sequence[str],
    at: int | None,
    at_seq: int | None,
    archives: Sequence[Path],
    *,
    everything: bool,
) -> list[Record]:
    if at is not None and at > byre.clock.now_ns():
        say.person(f"{say.local_time(at)} is yet to come; this is what is recorded now")
    with Past(byre.log, archives) as past:
        bounds = [at_seq] if at_seq is not None else []
        bounds += [past.seq_at(at)] if at is not None else []
        seq = min(bounds)
        if names:
            found = [past.disk_at(name, seq) for name in names]
            return _select([each for each in found if each], names, everything=True)
        return _select(past.moment(seq, everything=everything), (), everything=everything)


def _changes(byre: Byre, names: Sequence[str], *, everything: bool) -> Iterator[list[Record]]:
    """Yield the selected records now and after each change of the log, for ever."""
    from reconciler.watch.follow import LogFollower, changes  # noqa: PLC0415 - only with --watch

    with LogFollower(byre.log.path) as follower:
        for _ in changes(follower, byre.log.last_seq):
            yield _select(byre.log.records(), names, everything=everything)


def _show(byre: Byre, records: Sequence[Record], output: str) -> None:
    if output in ("json", "jsonl"):
        rows = [describe.disk(record, byre.kernel) for record in records]
        (say.machine if output == "json" else say.machine_line)(rows)
        return
    now = byre.clock.now_ns()
    columns = ["NAME", "STATE", "DESIRED", "DEVICE", "SINCE", "CONDITION"]
    if output == "wide":
        columns += ["LINK", "BASE", "DRIVER", "GENERATION", "ID", "COW"]
    say.table(columns, [_row(record, now, wide=output == "wide") for record in records])


def _row(record: Record, now_ns: int, *, wide: bool) -> list[str]:
    trouble = record.fault or record.failure
    row = [
        record.name,
        record.state.value,
        record.desired.value,
        record.device or "-",
        say.ago(record.state_since, now_ns),
        f"{trouble.kind}: {trouble.message}" if trouble else "-",
    ]
    if wide:
        spec = record.wanted
        row += [
            str(spec.link or "-"),
            str(spec.base),
            record.driver or "-",
            str(record.generation),
            record.id,
            record.cow_path or "-",
        ]
    return row

"""`get`: the disks as they are recorded, now or at an earlier moment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from reconciler import thishost
from reconciler.cli import describe, options, say
from reconciler.cli.app import Context
from reconciler.clock import SystemClock
from statemachine.errors import NoSuchDisk, UsageError
from statemachine.logreader import LogReader
from statemachine.record import Record


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
    with LogReader(ctx.root.log) as log:
        if watch:
            for records in _changes(log, names, everything=everything):
                _show(records, "jsonl" if output == "json" else output)
        elif at is None and at_seq is None:
            _show(_now(log, names, everything=everything), output)
            _sum_up(ctx, log)
        else:
            _show(_earlier(log, names, at, at_seq, archives, everything=everything), output)


def _sum_up(ctx: Context, log: LogReader) -> None:
    """Say how much of the root's limits is used, where it has any."""
    with contextlib.suppress(UsageError, OSError):  # the disks can be shown whatever they are
        if not ctx.root.config.exists():
            return
        from reconciler import allowance  # noqa: PLC0415 - only for a root with settings
        from reconciler.limits import Limits  # noqa: PLC0415

        limits = ctx.settings.limits
        if limits != Limits():
            used = allowance.used(log, thishost.kernel(), ctx.root.cows)
            say.person(f"limits: {allowance.summary(limits, used)}")


def _now(log: LogReader, names: Sequence[str], *, everything: bool) -> Iterable[Record]:
    if names:
        return [_known(log.record(name), name) for name in names]
    return log.each_record(everything=everything)


def _known(record: Record | None, name: str) -> Record:
    if record is None:
        raise NoSuchDisk(name)
    return record


def _earlier(
    log: LogReader,
    names: Sequence[str],
    at: int | None,
    at_seq: int | None,
    archives: Sequence[Path],
    *,
    everything: bool,
) -> list[Record]:
    from statemachine.past import Past  # noqa: PLC0415 - only with --at and --at-seq

    if at is not None and at > SystemClock().now_ns():
        say.person(f"{say.local_time(at)} is yet to come; this is what is recorded now")
    with Past(log, archives) as past:
        bounds = [at_seq] if at_seq is not None else []
        bounds += [past.seq_at(at)] if at is not None else []
        seq = min(bounds)
        if names:
            return [_known(past.disk_at(name, seq), name) for name in names]
        return past.moment(seq, everything=everything)


def _changes(
    log: LogReader, names: Sequence[str], *, everything: bool
) -> Iterator[Iterable[Record]]:
    """Yield the selected records now and after each change of the log, for ever."""
    from reconciler.watch.follow import LogFollower, changes  # noqa: PLC0415 - only with --watch

    with LogFollower(log.path) as follower:
        for _ in changes(follower, log.last_seq):
            yield _now(log, names, everything=everything)


def _show(records: Iterable[Record], output: str) -> None:
    rows = (describe.disk(record, thishost.allocated) for record in records)
    if output == "json":
        say.machine(rows)
        return
    if output == "jsonl":
        say.machine_line(list(rows))
        return
    now = SystemClock().now_ns()
    columns = ["NAME", "STATE", "DESIRED", "DEVICE", "SINCE", "CONDITION"]
    if output == "wide":
        columns += ["LINK", "BASE", "DRIVER", "GENERATION", "ID", "COW", "PARENT", "EXPIRES"]
    say.table(columns, [_row(record, now, wide=output == "wide") for record in records])


def _row(record: Record, now_ns: int, *, wide: bool) -> list[str]:
    trouble = record.fault or record.failure
    lapsed = record.lapsed.cause if record.lapsed else "-"
    row = [
        record.name,
        record.state.value,
        record.desired.value,
        record.device or "-",
        say.ago(record.state_since, now_ns),
        f"{trouble.kind}: {trouble.message}" if trouble else lapsed,
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
            str(record.parent or "-"),
            say.local_time(record.expires_at) if record.expires_at is not None else "-",
        ]
    return row

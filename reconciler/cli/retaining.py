"""`log archive`, `log info`, `log vacuum`: how large the log is, and letting its oldest part go."""

from __future__ import annotations

from pathlib import Path

import attrs
import click

from reconciler.api import Byre
from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.requester import this_process
from statemachine import logsize, retention
from statemachine.eventlog import EventLog
from statemachine.logreader import LogReader
from statemachine.utc import iso

BEFORE = "90d"
"""Younger events are what people ask for when something has gone wrong."""


@click.command(
    "archive",
    epilog=options.epilog(
        "byre log archive /srv/audit/2026-q3.byre --before 2026-10-01",
        "byre log archive old.byre --vacuum",
    ),
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--before",
    type=options.Moment(),
    default=BEFORE,
    show_default=True,
    help="Move the events of before this time.",
)
@click.option("--vacuum", is_flag=True, help="Give the room back to the file system as well.")
@options.reasoned
@options.output("table", "json")
@click.pass_obj
def archive_command(
    ctx: Context, *, file: Path, before: int, vacuum: bool, reason: str, output: str
) -> None:
    """Move the oldest events into a compressed file of their own, with their own proof.

    All disks stay, and what is recorded of them; `get`, `history`, `timeline`, `log export` and
    `replay` take the file with --archive. Safe while a reconciler works, and whenever it is
    interrupted.
    """
    with Byre(ctx.root.path) as byre:
        done = retention.archive_before(
            byre.log, before, file.absolute(), by=this_process(), reason=reason
        )
        if vacuum:
            retention.vacuum(byre.log)
    if output == "json":
        row = None
        if done is not None:
            times = {"first_at": iso(done.span.first_at), "last_at": iso(done.span.last_at)}
            row = {
                "file": str(done.file),
                "digest": done.digest,
                "size_bytes": done.size_bytes,
                "events": done.span.events,
                **attrs.asdict(done.span),
                **times,
            }
        say.machine(row)
    if done is None:
        say.person(f"no event is older than {say.local_time(before)}; nothing was changed")
        return
    say.person(
        f"events {done.span.first_seq} to {done.span.last_seq} are in {done.file}: "
        f"{done.size_bytes / done.span.events:.1f} bytes an event, SHA-256 {done.digest}"
    )


@click.command("vacuum", epilog=options.epilog("byre log vacuum"))
@click.pass_obj
def vacuum_command(ctx: Context) -> None:
    """Give room that the log does not need any more back to the file system.

    Nobody can append meanwhile, and as much room as the log takes is needed for that time.
    """
    with EventLog(ctx.root.log) as log:
        before = logsize.measure(log)
        retention.delete_archived(log)
        retention.vacuum(log)
        after = logsize.measure(log)
    say.person(f"{before.file_bytes} bytes before, {after.file_bytes} now")


@click.command("info", epilog=options.epilog("byre log info", "byre log info -o json"))
@options.output("table", "json")
@click.pass_obj
def info_command(ctx: Context, *, output: str) -> None:
    """Say how large the log is, what it begins with, and what is in archives."""
    with LogReader(ctx.root.log) as log:
        found = logsize.measure(log)
    if output == "json":
        plain = attrs.asdict(found)
        for row in plain["archives"]:
            for field in ("first_at", "last_at", "archived_at"):
                row[field] = iso(row[field])
        say.machine(plain)
        return
    say.table(
        ("WHAT", "HOW MUCH"),
        [
            ("events", f"{found.events} ({found.first_seq} to {found.last_seq})"),
            ("disks", f"{found.disks}, {found.removed} of them removed"),
            ("checkpoints", f"{found.checkpoints}, {found.checkpoint_bytes} bytes"),
            ("file", f"{found.file_bytes} bytes, {found.bytes_per_event:.0f} an event"),
            ("free in it", f"{found.free_bytes} bytes (`byre log vacuum`)"),
            ("WAL", f"{found.wal_bytes} bytes"),
            ("schema", str(found.schema)),
        ],
    )
    say.table(
        ("ARCHIVE", "EVENTS", "FROM", "TO", "SHA-256"),
        [
            (
                each.file,
                f"{each.first_seq} to {each.last_seq}",
                say.local_time(each.first_at),
                say.local_time(each.last_at),
                each.digest,
            )
            for each in found.archives
        ],
    )

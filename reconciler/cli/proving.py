"""`replay` and `log`: is a record what the log says, is the log what was written, what is left?"""

from __future__ import annotations

from pathlib import Path

import attrs
import click

from reconciler import drift
from reconciler.api import Byre
from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.cli.auditing import head_command, keygen_command, verify_command
from reconciler.cli.exporting import export_command
from reconciler.cli.keeping import backup_command, restore_command
from statemachine import history
from statemachine.eventlog import EventLog
from statemachine.projection import Record
from statemachine.salvage import salvage

LOOKS_MAX = 10
"""How often a disk is looked at that a reconciler moves between the look and the record."""


@click.command(
    "replay", epilog=options.epilog("byre replay", "byre replay --verify", "byre replay --repair")
)
@click.option("--verify", is_flag=True, help="Compare with what the kernel shows as well.")
@click.option("--repair", is_flag=True, help="Write the rebuilt records over the recorded ones.")
@options.output("table", "json")
@click.pass_obj
def replay_command(ctx: Context, *, verify: bool, repair: bool, output: str) -> int:
    """Rebuild every record from the events alone, and compare."""
    with Byre(ctx.root.path, read_only=not repair) as byre:
        chain = history.verify(byre.log)
        differences = [] if repair else [str(each) for each in history.compare(byre.log)]
        rebuilt = byre.log.rebuild_projection() if repair else len(byre.log.records())
        drifts = _drifts(byre) if verify else []
    if output == "json":
        say.machine(
            {
                "events": chain.events,
                "disks": rebuilt,
                "head": chain.hash,
                "unknown": chain.unknown,
                "differences": differences,
                "drift": drifts,
            }
        )
    for line in differences:
        say.error(line, "the events decide: `byre replay --repair`")
    for line in drifts:
        say.error(line, "the next pass of a reconciler records and repairs it")
    if not (differences or drifts):
        say.person(
            f"{rebuilt} disks rebuilt from {chain.events} events; "
            f"{'the records were written again' if repair else 'the records are the same'}"
        )
    return 1 if differences or drifts else 0


def _drifts(byre: Byre) -> list[str]:
    found = [_drift(byre, record) for record in byre.log.records()]
    return [line for line in found if line]


def _drift(byre: Byre, record: Record) -> str:
    """Say how the kernel differs from a record; "" if it does not, or if it is being changed."""
    for _ in range(LOOKS_MAX):
        if record.in_flight is not None:
            return ""  # whoever does it ends it, and the next pass if that one died
        view, _ = byre.look(record)
        now = byre.get(record.name)
        if now.expect == record.expect:
            judged = drift.judge(record, view.seen)
            wrong = view.seen.fault or ("; ".join(judged.differences) if judged else "")
            return f"{record.name}: {wrong}" if wrong else ""
        record = now
    return ""


@click.group("log", epilog=options.epilog("byre log verify", "byre log head"))
def log_command() -> None:
    """Prove the event log, and keep what is intact of a damaged one."""


for _command in (
    verify_command,
    head_command,
    keygen_command,
    backup_command,
    restore_command,
    export_command,
):
    log_command.add_command(_command)


@log_command.command("salvage", epilog=options.epilog("byre log salvage /srv/new/byre.db"))
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@options.output("table", "json")
@click.pass_obj
def salvage_command(ctx: Context, *, target: Path, output: str) -> None:
    """Write the intact events of a damaged log into a new one; the damaged one stays as it is."""
    with EventLog(ctx.root.log, read_only=True, lenient=True) as log:
        kept = salvage(log, target.absolute())
    if output == "json":
        say.machine(attrs.asdict(kept))
    if not kept.has_root_id:
        say.error(
            "the root's identity could not be read; the new log has one of its own",
            "loop devices of bases that are in use stay until their disks are paused",
        )
    say.person(f"{kept.seq} events and {kept.disks} disks are in {target}; head {kept.hash}")
    say.person(f"not kept: {kept.lost}" if kept.lost else "nothing is missing")

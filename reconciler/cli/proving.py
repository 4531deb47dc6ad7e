"""`replay` and `log`: is a record what the log says, is the log what was written, what is left?"""

from __future__ import annotations

from pathlib import Path

import attrs
import click

from reconciler import drift
from reconciler.api import Byre
from reconciler.cli import describe, options, say
from reconciler.cli.app import Context
from reconciler.cli.auditing import head_command, keygen_command, verify_command
from reconciler.cli.exporting import export_command
from reconciler.cli.keeping import backup_command, restore_command
from reconciler.cli.retaining import archive_command, info_command, vacuum_command
from statemachine.logreader import LogReader
from statemachine.past import Past
from statemachine.record import Record
from statemachine.repair import rebuild
from statemachine.replaying import Replayed, replay, replay_into
from statemachine.salvage import salvage

LOOKS_MAX = 10
"""How often a disk is looked at that a reconciler moves between the look and the record."""


@click.command(
    "replay",
    epilog=options.epilog(
        "byre replay",
        "byre replay --verify",
        "byre replay --until '2 hours ago' --into /tmp/then/byre.db",
        "byre replay --repair",
    ),
)
@click.option("--verify", is_flag=True, help="Compare with checkpoints and the kernel as well.")
@click.option("--repair", is_flag=True, help="Write the rebuilt records over the recorded ones.")
@click.option("--from-checkpoint", is_flag=True, help="Begin with the newest one before the end.")
@click.option("--until", type=options.Moment(), help="End with the last event of this time.")
@click.option("--until-seq", type=click.IntRange(min=0), help="End with this event.")
@click.option(
    "--into",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what was replayed into a new log.",
)
@options.archives
@options.output("table", "json")
@click.pass_obj
def replay_command(
    ctx: Context,
    *,
    verify: bool,
    repair: bool,
    from_checkpoint: bool,
    until: int | None,
    until_seq: int | None,
    into: Path | None,
    archives: tuple[Path, ...],
    output: str,
) -> int:
    """Rebuild every record from the events alone, and compare.

    The chain is checked on the way. Events of a type that this program does not know are kept and
    told of. Up to an earlier moment there is nothing to compare with but checkpoints.
    """
    is_earlier = until is not None or until_seq is not None
    if repair and (is_earlier or into or from_checkpoint):
        raise click.UsageError(
            "--repair writes the records of now; it goes with none of the others"
        )
    if into and from_checkpoint:
        raise click.UsageError("--into writes all events; it does not go with --from-checkpoint")
    with Byre(ctx.root.path, read_only=not repair) as byre, Past(byre.log, archives) as past:
        if repair:
            rebuild(byre.log)
        bounds = [until_seq] if until_seq is not None else []
        bounds += [past.seq_at(until)] if until is not None else []
        end = min(bounds) if bounds else None
        if into is not None:
            done = replay_into(byre.log, into.absolute(), until=end, archives=past.archives)
        else:
            done = replay(
                byre.log,
                from_checkpoint=from_checkpoint,
                until=end,
                archives=past.archives,
                with_checkpoints=verify,
            )
        drifts = _drifts(byre) if verify and not is_earlier else []
        rows = [describe.disk(record, byre.kernel.allocated) for record in done.records]
    differences = [str(each) for each in done.differences]
    if output == "json":
        found = {
            "events": done.events,
            "since": done.since,
            "seq": done.seq,
            "disks": done.disks,
            "head": done.hash,
            "unknown": sum(count for _, count in done.unknown),
            "unknown_types": dict(done.unknown),
            "checkpoints": done.checkpoints,
            "differences": differences,
            "drift": drifts,
        }
        say.machine(found | ({"records": rows} if is_earlier else {}))
    _tell(done, differences, drifts, is_repaired=repair, is_earlier=is_earlier)
    return 1 if differences or drifts else 0


def _tell(
    done: Replayed,
    differences: list[str],
    drifts: list[str],
    *,
    is_repaired: bool,
    is_earlier: bool,
) -> None:
    for line in differences:
        say.error(line, "the events decide: `byre replay --repair`")
    for line in drifts:
        say.error(line, "the next pass of a reconciler records and repairs it")
    for kind, count in done.unknown:
        say.person(f"{count} of type {kind} are of a newer byre; they are kept, and move nothing")
    if differences or drifts:
        return
    outcome = "the records are the same"
    if is_repaired:
        outcome = "the records were written again"
    elif is_earlier:
        outcome = f"{len(done.records)} are not removed at event {done.seq}"
    also = f"; {done.checkpoints} checkpoints say the same" if done.checkpoints else ""
    began = f" after event {done.since}" if done.since else ""
    say.person(f"{done.disks} disks rebuilt from {done.events} events{began}; {outcome}{also}")


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
    """Prove the event log, keep what is intact of a damaged one, and let its oldest part go."""


for _command in (
    verify_command,
    head_command,
    keygen_command,
    backup_command,
    restore_command,
    export_command,
    info_command,
    archive_command,
    vacuum_command,
):
    log_command.add_command(_command)


@log_command.command("salvage", epilog=options.epilog("byre log salvage /srv/new/byre.db"))
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@options.output("table", "json")
@click.pass_obj
def salvage_command(ctx: Context, *, target: Path, output: str) -> None:
    """Write the intact events of a damaged log into a new one; the damaged one stays as it is."""
    with LogReader(ctx.root.log, lenient=True) as log:
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

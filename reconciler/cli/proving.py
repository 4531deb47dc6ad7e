"""`replay` and `log verify`: is the record what the log says, and is the log what was written?"""

from __future__ import annotations

import click

from reconciler import drift
from reconciler.api import Byre
from reconciler.cli import options, say
from reconciler.cli.app import Context
from statemachine import history


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
    found = []
    for record in byre.log.records():
        view, _ = byre.look(record)
        judged = drift.judge(record, view.seen)
        if view.seen.fault:
            found.append(f"{record.name}: {view.seen.fault}")
        elif judged is not None:
            found.append(f"{record.name}: {'; '.join(judged.differences)}")
    return found


@click.group("log", epilog=options.epilog("byre log verify"))
def log_command() -> None:
    """Check the event log."""


@log_command.command("verify", epilog=options.epilog("byre log verify", "byre log verify -o json"))
@options.output("table", "json")
@click.pass_obj
def verify_command(ctx: Context, *, output: str) -> None:
    """Check every event against its hash and its predecessor; names the first bad one."""
    with Byre(ctx.root.path, read_only=True) as byre:
        chain = history.verify(byre.log)
    if output == "json":
        say.machine(
            {"events": chain.events, "seq": chain.seq, "head": chain.hash, "unknown": chain.unknown}
        )
    say.person(f"{chain.events} events are what was written; head {chain.hash}")

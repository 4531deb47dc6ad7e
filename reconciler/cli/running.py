"""`run`: the reconciler, until it is told to stop, or for one pass."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler import specs
from reconciler.api import Byre
from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.config import Settings
from reconciler.daemon import Daemon
from reconciler.logs import LogFormat, configure
from reconciler.outcome import Waited
from reconciler.watch.dmevents import DmEventWatcher
from reconciler.watch.folders import FolderWatcher, Place
from reconciler.watch.hint import Watcher
from reconciler.watch.log import LogWatcher
from reconciler.watch.uevents import UeventWatcher

ONCE_TIMEOUT_S = 30.0


@click.command(
    "run",
    epilog=options.epilog("byre run --specs /etc/byre/disks.d", "byre run --once"),
)
@click.option("--once", is_flag=True, help="Bring every disk to where it should be, and end.")
@click.option(
    "--specs",
    "specs_path",
    type=click.Path(path_type=Path),
    help="A file or folder of specs to keep to.",
)
@click.option(
    "--resync",
    "resync_s",
    type=float,
    metavar="S",
    help="How often everything is looked at without a wake-up, in seconds.  "
    f"[default: {Settings().resync_s:.0f}]",
)
@click.option(
    "--workers",
    type=int,
    help=f"How many disks are worked on at once.  [default: {Settings().workers}]",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, options.TIMEOUT_S_MAX),
    default=ONCE_TIMEOUT_S,
    show_default=True,
    metavar="S",
    help="With --once: how long to go on with disks that are not there yet, in seconds.",
)
@click.option(
    "--log-format",
    type=click.Choice([each.value for each in LogFormat]),
    default=LogFormat.AUTO.value,
    show_default=True,
    envvar="BYRE_LOG_FORMAT",
    help="How to log; auto is for journald under systemd.",
)
@click.pass_obj
def run_command(
    ctx: Context,
    *,
    once: bool,
    specs_path: Path | None,
    resync_s: float | None,
    workers: int | None,
    timeout_s: float,
    log_format: str,
) -> int:
    """Keep the disks of this root as they should be, until SIGTERM; SIGHUP reads specs again."""
    configure(LogFormat(log_format))
    settings = ctx.settings_with(resync_s=resync_s, workers=workers)
    with Byre(ctx.root.path, settings=settings) as byre:
        if once:
            return _once(byre, specs_path, timeout_s)
        Daemon(
            byre,
            specs_path=specs_path.absolute() if specs_path else None,
            watchers=_watchers(byre, specs_path),
        ).run_with_signals()
    return 0


def _once(byre: Byre, specs_path: Path | None, timeout_s: float) -> int:
    if specs_path is not None:
        byre.apply(specs.read(str(specs_path)), reason=f"specs in {specs_path}")
    answers = byre.reconcile_once(timeout_s=timeout_s)
    missing = [each for each in answers if not each.is_there]
    for each in missing:
        say.error(f"{each.record.name}: {each.message}", each.hint)
    say.person(f"{len(answers) - len(missing)} of {len(answers)} disks are as they should be")
    return _worst(missing)


def _worst(missing: list[Waited]) -> int:
    return max((each.exit_code for each in missing), default=0)


def _watchers(byre: Byre, specs_path: Path | None) -> tuple[Watcher, ...]:
    places = [Place.mapper()]
    if specs_path is not None:
        places.append(Place.specs(specs_path.absolute()))
    return (
        LogWatcher(byre.root.log, byre.clock),
        FolderWatcher(places, byre.clock),
        UeventWatcher(),
        DmEventWatcher(),
    )

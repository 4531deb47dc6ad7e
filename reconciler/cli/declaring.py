"""`apply`, `create`, `pause`, `restore`, `remove`, `retry`: saying what should be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from reconciler.api import Byre
from reconciler.cli import describe, options, say
from reconciler.cli.app import Context
from reconciler.cli.wishing import Wish, claimed, wishing
from reconciler.declare import Declared
from reconciler.lock import RootLock
from reconciler.outcome import Waited
from reconciler.specs import Sourced, read
from statemachine.errors import RootBusy, SpecError
from statemachine.lifetime import OnExpiry
from statemachine.machine import Desired, Trigger
from statemachine.names import NAME_RULE
from statemachine.spec import BUSY_TIMEOUT_S, DriverChoice, OnBusy
from statemachine.specreader import BUSY_TIMEOUT_S_MAX, parse

EXIT_ORDER = (4, 1, 5)
"""Of several disks that did not get there, which exit code tells most."""


@click.command(
    "apply",
    epilog=options.epilog("byre apply -f disks.toml --wait", "byre apply -f /etc/byre/disks.d"),
)
@click.option(
    "-f", "--file", "where", required=True, metavar="FILE|DIR|-", help="TOML, YAML or JSON."
)
@click.option("--prune", is_flag=True, help="Also remove every disk that the specs do not name.")
@wishing
@click.pass_obj
def apply_command(
    ctx: Context,
    *,
    where: str,
    prune: bool,
    wish: Wish,
) -> int:
    """Declare every disk of a file, a folder or standard input; all of them or none."""
    wanted = read(where)
    with opened(ctx) as byre:
        declared = byre.apply(
            wanted, prune=prune, reason=wish.reason, on_behalf_of=wish.on_behalf_of
        )
        return finish(byre, declared, wish)


@click.command(
    "create",
    epilog=options.epilog(
        "byre create sb-1 --base ubuntu.ext4 --wait",
        "byre create sb-2 --base ubuntu.ext4 --link /srv/vm/sb-2/rootfs.link",
    ),
)
@click.argument("name")
@click.option("--base", required=True, metavar="IMG", help="The base image, a raw file.")
@click.option("--link", metavar="PATH", help="A stable path that always leads to the device.")
@click.option(
    "--jail",
    metavar="ROOT:NODE:UID:GID",
    help="A device node inside a jail: its folder, the path in it, whose it is.",
)
@click.option(
    "--desired",
    type=click.Choice([each.value for each in Desired if each is not Desired.REMOVED]),
    default=Desired.LIVE.value,
    show_default=True,
    help="What the disk should be.",
)
@click.option(
    "--driver",
    type=click.Choice([each.value for each in DriverChoice]),
    default=DriverChoice.AUTO.value,
    show_default=True,
    help="How it is built; auto takes dm-snapshot where the kernel has it.",
)
@click.option("--size", metavar="SIZE", help="How large it is (4GiB), if larger than its base.")
@click.option(
    "--cow-size",
    metavar="SIZE",
    help="How large its CoW begins (64MiB); by default so large that it never overflows.",
)
@click.option("--cow-max", metavar="SIZE", help="How far its CoW may be grown.")
@click.option(
    "--chunk-size",
    metavar="SIZE",
    help="What dm-snapshot copies at a time: 4KiB (the default) to 512KiB, a power of two.",
)
@click.option(
    "--throwaway",
    is_flag=True,
    help="Its data goes with its device, so it cannot be paused (persistent = false).",
)
@click.option("--direct-io", is_flag=True, help="Keep its writes out of the host's page cache.")
@click.option(
    "--on-busy",
    "on_busy",
    type=click.Choice([each.value for each in OnBusy]),
    default=OnBusy.WAIT.value,
    show_default=True,
    help="What becomes of a pause or a removal when the disk is in use for too long.",
)
@click.option(
    "--busy-timeout",
    "busy_timeout_s",
    type=click.FloatRange(0, BUSY_TIMEOUT_S_MAX),
    default=BUSY_TIMEOUT_S,
    show_default=True,
    metavar="S",
    help="How long is too long, in seconds.",
)
@click.option("--ttl", metavar="TIME", help="For how long it is wanted: 90s, 2h, 1d12h.")
@click.option("--expires-at", metavar="WHEN", help="Until when: ISO 8601 with its offset.")
@click.option(
    "--on-expiry",
    type=click.Choice([each.value for each in OnExpiry]),
    help="What becomes of it then: pause by default, remove of a throwaway disk.",
)
@click.option("--idle-pause", metavar="TIME", help="Pause it when nobody wrote to it for so long.")
@wishing
@click.pass_obj
def create_command(
    ctx: Context,
    *,
    name: str,
    base: str,
    link: str | None,
    jail: str | None,
    desired: str,
    driver: str,
    size: str | None,
    cow_size: str | None,
    cow_max: str | None,
    chunk_size: str | None,
    throwaway: bool,
    direct_io: bool,
    on_busy: str,
    busy_timeout_s: float,
    ttl: str | None,
    expires_at: str | None,
    on_expiry: str | None,
    idle_pause: str | None,
    wish: Wish,
) -> int:
    """Declare one disk."""
    table: dict[str, object] = {"name": name, "base": base, "state": desired, "driver": driver}
    table |= {"on_busy": on_busy, "busy_timeout_s": busy_timeout_s}
    table |= {"persistent": not throwaway, "direct_io": direct_io}

    given = {"link": link, "cow_size": cow_size, "cow_max": cow_max, "chunk_size": chunk_size}
    given |= {"ttl": ttl, "expires_at": expires_at, "idle_pause": idle_pause}
    given |= {"on_expiry": on_expiry, "size": size}
    table |= {field: value for field, value in given.items() if value is not None}
    if jail is not None:
        table["jail"] = options.jail_table(jail)
    [spec] = parse({"disk": [table]}, source="create", folder=Path.cwd())
    with opened(ctx) as byre:
        wanted = [Sourced("create", spec)]
        declared = byre.apply(wanted, reason=wish.reason, on_behalf_of=wish.on_behalf_of, anew=True)
        return finish(byre, declared, wish)


def _commanding(trigger: Trigger, text: str, example: str) -> click.Command:
    @click.command(trigger.value, epilog=options.epilog(example), help=text)
    @options.names(required=True)
    @wishing
    @click.pass_obj
    def command(
        ctx: Context,
        *,
        names: tuple[str, ...],
        wish: Wish,
    ) -> int:
        with opened(ctx) as byre:
            declared = byre.command(
                unique(names), trigger, reason=wish.reason, on_behalf_of=wish.on_behalf_of
            )
            return finish(byre, declared, wish)

    return command


pause_command = _commanding(
    Trigger.PAUSE,
    "Take disks out of the kernel and keep their data.",
    "byre pause sb-1 sb-2 --wait",
)


@click.command(
    "restore",
    epilog=options.epilog("byre restore sb-1 --wait", "byre restore sb-1 --to clean --wait"),
)
@options.names(required=True)
@click.option("--to", "point", metavar="POINT", help="Go back to a kept point; one NAME only.")
@wishing
@click.pass_obj
def restore_command(
    ctx: Context,
    *,
    names: tuple[str, ...],
    point: str | None,
    wish: Wish,
) -> int:
    """Bring paused disks back to life, with their data.

    With --to the disk is paused first if it is live, and its data gives way to that of the point;
    what was written since is lost. The copy of the point is made before, so the disk is away for
    no longer than a pause and a restore take. A faulted disk may go back as well. Without --to,
    what was not begun yet of going back is taken back.
    """
    several = unique(names)
    if point is not None and len(several) > 1:
        raise click.UsageError(f"--to goes with one disk; there are {len(several)}")
    with opened(ctx) as byre:
        if point is None:
            declared = byre.command(
                several, Trigger.RESTORE, reason=wish.reason, on_behalf_of=wish.on_behalf_of
            )
        else:
            back = byre.go_back(
                several[0], point, reason=wish.reason, on_behalf_of=wish.on_behalf_of
            )
            declared = [back]
        return finish(byre, declared, wish)


remove_command = _commanding(
    Trigger.REMOVE,
    "Remove disks and delete their data.",
    "byre remove sb-1 --wait --reason 'sandbox ended'",
)


@click.command(
    "extend", epilog=options.epilog("byre extend sb-1 --ttl 2h", "byre extend sb-1 --forever")
)
@options.names(required=True)
@click.option("--ttl", metavar="TIME", help="For how long from now: 90s, 2h, 1d12h.")
@click.option("--expires-at", metavar="WHEN", help="Until when: ISO 8601 with its offset.")
@click.option("--forever", is_flag=True, help="Until somebody says otherwise.")
@options.reasoned
@claimed
@options.output("table", "json")
@click.pass_obj
def extend_command(
    ctx: Context,
    *,
    names: tuple[str, ...],
    ttl: str | None,
    expires_at: str | None,
    forever: bool,
    reason: str,
    on_behalf_of: str,
    output: str,
) -> int:
    """Give disks another end, or none; what they should be until then stays as it is.

    A disk that has lapsed already and is paused comes back by `byre restore`.
    """
    if [ttl is not None, expires_at is not None, forever].count(True) != 1:
        raise click.UsageError("one of --ttl, --expires-at and --forever")
    with opened(ctx) as byre:
        declared = byre.extend(
            unique(names),
            ttl=ttl,
            expires_at=expires_at,
            reason=reason,
            on_behalf_of=on_behalf_of,
        )
        told = Wish(
            wait=False, timeout_s=0.0, reason=reason, on_behalf_of=on_behalf_of, output=output
        )
        return finish(byre, declared, told)


@click.command("retry", epilog=options.epilog("byre retry sb-1 --wait"))
@options.names(required=True)
@wishing
@click.pass_obj
def retry_command(
    ctx: Context,
    *,
    names: tuple[str, ...],
    wish: Wish,
) -> int:
    """Try failing, stalled or faulted disks again, now."""
    with opened(ctx) as byre:
        declared = byre.retry(unique(names), reason=wish.reason, on_behalf_of=wish.on_behalf_of)
        return finish(byre, declared, wish)


def opened(ctx: Context) -> Byre:
    """Open the root that a command is about."""
    return Byre(ctx.root.path, settings=ctx.settings)


def unique(names: Sequence[str]) -> list[str]:
    """Return names without repetition; raises SpecError for what cannot be one."""
    for name in names:
        if not name or "\n" in name:
            raise SpecError([f"{name!r} is not a disk name; allowed is {NAME_RULE}"])
    return list(dict.fromkeys(names))


def finish(byre: Byre, declared: Sequence[Declared], wish: Wish) -> int:
    """Wait if asked to, answer, and return the exit code."""
    for each in declared:
        note = f": {each.note}" if each.note else ""
        say.person(f"{each.name}: {'declared' if each.changed else 'unchanged'}{note}")
    names = [each.name for each in declared if byre.log.record(each.name) is not None]
    code = 0
    if wish.wait:
        code = _report(_wait(byre, names, wish.timeout_s))
    elif any(each.changed for each in declared) and _is_alone(byre):
        say.person("no reconciler is running on this root: use --wait, or start `byre run`")
    if wish.output == "json":
        changed = {each.name: each.changed for each in declared}
        rows = [describe.disk(byre.get(name), byre.kernel.allocated) for name in names]
        say.machine([{**row, "changed": changed[row["name"]]} for row in rows])
    return code


def _wait(byre: Byre, names: Sequence[str], timeout_s: float) -> list[Waited]:
    from reconciler.cli.progress import progress  # noqa: PLC0415 - only with --wait
    from reconciler.logs import LogFormat, configure  # noqa: PLC0415

    configure(LogFormat.AUTO)
    with progress(byre, names):
        return byre.wait(names, timeout_s=timeout_s)


def _report(waited: Sequence[Waited]) -> int:
    for each in waited:
        record = each.record
        if each.is_there:
            where = f" at {record.device}" if record.device else ""
            say.person(f"{record.name}: {record.state}{where}")
        else:
            say.error(f"{record.name}: {each.message}", each.hint)
    codes = {each.exit_code for each in waited}
    return next((code for code in EXIT_ORDER if code in codes), 0)


def _is_alone(byre: Byre) -> bool:
    lock = RootLock(byre.root.lock)
    try:
        lock.acquire()
    except RootBusy:
        return False
    lock.release()
    return True

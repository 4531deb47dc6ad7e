"""`fsck`: the exception store of a CoW file, checked offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from reconciler.api import Byre
from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.storecheck import Checked, check_disk, check_file
from statemachine.errors import LogUnavailable, NoSuchDisk, UsageError
from statemachine.observed import SnapshotStatus
from statemachine.units import Bytes, UnitError


class Size(click.ParamType[Bytes]):
    """A size: "4096", "64M", "10GiB"."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Bytes:
        """Return it in bytes."""
        try:
            return Bytes.parse(str(value))
        except UnitError as error:
            self.fail(str(error), param, ctx)


@click.command(
    "fsck",
    epilog=options.epilog("byre fsck sb-1", "byre fsck /backup/sb-1.cow --disk-size 4GiB -o json"),
)
@click.argument("what", metavar="NAME|FILE", shell_complete=options.complete_names)
@click.option(
    "--disk-size",
    type=Size(),
    help="With FILE: how large its disk is, so that exceptions past its end are found.",
)
@options.output("table", "json")
@click.pass_obj
def fsck_command(ctx: Context, *, what: str, disk_size: Bytes | None, output: str) -> int:
    """Check the exception store of a disk, or of a CoW file; 1 if something is wrong in it.

    Reads the file and nothing else: header, every exception, duplicates, what lies out of range,
    torn areas. Works without the kernel and without root. What has a slash in it is a file; what
    has none is a disk, or a file if no disk is called so.
    """
    checked = _check(ctx, what, disk_size)
    if output == "json":
        say.machine(plain(checked))
    else:
        _show(checked)
    return 0 if checked.sound else 1


def plain(checked: Checked) -> dict[str, Any]:
    """Return an answer as scripts get it (docs/reference/commands.md)."""
    report = checked.report
    header = report.header if report else None
    return {
        "disk": checked.disk or None,
        "file": str(checked.path),
        "live": checked.is_live,
        "note": checked.note,
        "sound": checked.sound,
        "header": {"valid": header.valid, "chunk_bytes": header.chunk_bytes} if header else None,
        "exceptions": report.exceptions if report else None,
        "usage": _usage(checked, report.status if report else None),
        "findings": [
            {"kind": each.kind.value, "offset": each.offset, "message": each.message}
            for each in (report.findings if report else ())
        ],
        "findings_total": report.findings_total if report else 0,
    }


def _usage(checked: Checked, status: SnapshotStatus | None) -> dict[str, Any] | None:
    if status is None:
        return None
    return {
        "health": status.health.value,
        "used_bytes": status.used.to_bytes().count,
        "capacity_bytes": status.total.to_bytes().count,
        "metadata_bytes": status.metadata.to_bytes().count,
        "fill": checked.fill,
        "dirty": checked.dirty,
    }


def _check(ctx: Context, what: str, disk_size: Bytes | None) -> Checked:
    if "/" in what:
        return check_file(Path(what), disk_size=disk_size)
    try:
        with Byre(ctx.root.path, read_only=True) as byre:
            record = byre.get(what)
            if disk_size is not None:
                raise UsageError("--disk-size goes with a FILE; the size of a disk is known")
            return check_disk(byre.sources(), record)
    except (LogUnavailable, NoSuchDisk):
        if not Path(what).is_file():
            raise
    return check_file(Path(what), disk_size=disk_size)


def _show(checked: Checked) -> None:
    report, title = checked.report, checked.disk or str(checked.path)
    if report is not None:
        rows = [(each.kind.value, str(each.offset), each.message) for each in report.findings]
        if rows:
            say.table(("FINDING", "OFFSET", "WHAT"), rows)
        more = report.findings_total - len(rows)
        if more:
            say.person(f"and {more} more")
        say.person(f"{title}: {_verdict(checked, report.findings_total, report.exceptions)}")
    if checked.note:
        say.person(f"{title}: {checked.note}")


def _verdict(checked: Checked, problems: int, exceptions: int) -> str:
    words = [f"{problems} problems" if problems else "sound", f"{exceptions} exceptions"]
    if checked.fill is not None:
        words.append(f"{checked.fill:.1%} of the store is used")
    if checked.dirty is not None:
        words.append(f"{checked.dirty:.1%} of the disk has changed")
    return ", ".join(words)

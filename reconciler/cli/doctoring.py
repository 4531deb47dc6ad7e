"""`doctor`: what this host can do, and what will hurt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import attrs
import click

from reconciler.checkup.finding import Finding, Level
from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.doctor import examine, is_blocked, patient_of
from reconciler.kernel.linux import LinuxKernel


@click.command("doctor", epilog=options.epilog("byre doctor", "byre doctor -o json"))
@options.output("table", "json")
@click.pass_obj
def doctor_command(ctx: Context, *, output: str) -> int:
    """Say what this host can do and what will hurt, each with its remedy; 1 if byre cannot work."""
    prefix = ctx.settings.device_prefix
    findings = examine(patient_of(ctx.root, LinuxKernel(), device_prefix=prefix))
    if output == "json":
        say.machine([{**attrs.asdict(each), "level": each.level.value} for each in findings])
    else:
        _show(findings)
    return 1 if is_blocked(findings) else 0


def _show(findings: Sequence[Finding]) -> None:
    rows = [
        (
            each.level.value if each.level is not Level.BLOCKER else "BLOCKER",
            each.check,
            each.found + (f"\n→ {each.remedy}" if each.remedy else ""),
        )
        for each in findings
    ]
    say.table(("LEVEL", "CHECK", "FOUND"), rows)
    count = Counter(each.level for each in findings)
    words = ", ".join(f"{count[level]} {level.value}" for level in Level if count[level])
    say.person(words)

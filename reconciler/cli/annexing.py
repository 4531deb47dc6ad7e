"""The other half of `import`: the disks of another program on this host become byre's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from reconciler.adoption import Word
from reconciler.annex import Taker
from reconciler.api import Byre
from reconciler.cli import say
from reconciler.cli.app import Context
from reconciler.foreign import Find
from reconciler.peers import Peer
from statemachine.errors import ByreError

WAIT_S = 30.0
"""How long the one look may take that an adopted disk gets at once."""


@attrs.frozen(kw_only=True)
class Taking:
    """What was asked for."""

    peer: Peer
    which: tuple[str, ...]
    word: Word
    folder: Path | None
    reason: str
    on_behalf_of: str


def take_over(ctx: Context, taking: Taking, *, dry_run: bool, output: str) -> int:
    """Show what there is, or make disks of it; returns the exit code.

    One that cannot be taken over does not keep the others from it.
    """
    with Byre(ctx.root.path, settings=ctx.settings) as byre:
        taker = Taker(
            byre,
            taking.peer,
            folder=taking.folder,
            word=taking.word,
            reason=taking.reason,
            on_behalf_of=taking.on_behalf_of,
        )
        found = taker.look(taking.which)
        if dry_run:
            _show(found, output)
            if not found:
                say.person(f"nothing of {taking.peer.name} is on this host")
            return 0
        code = 0
        for find in found:
            code = max(code, _take(byre, taker, find))
        _show(taker.look(taking.which) if found else (), output)
    return code


def _take(byre: Byre, taker: Taker, find: Find) -> int:
    """Take one over, and say how that went."""
    if find.is_taken:
        say.person(f"{find.name}: is disk {find.disk} already")
        return 0
    try:
        name = taker.take(find)
    except ByreError as error:
        say.error(error.message, error.hint)
        return error.exit_code
    [waited] = byre.wait([name], timeout_s=WAIT_S)
    say.person(f"{find.name}: taken over, disk {name} is {waited.record.state}")
    if not waited.is_there:
        say.error(f"{name}: {waited.message}", waited.hint)
    return waited.exit_code


def _show(found: Sequence[Find], output: str) -> None:
    if output == "json":
        say.machine([_described(find) for find in found])
        return
    if not found:
        return
    rows = [
        (
            find.kind.value,
            find.name,
            find.disk,
            find.table or "-",
            str(find.open_count),
            find.cow or "-",
            find.base or "-",
            _verdict(find),
        )
        for find in found
    ]
    say.table(("KIND", "NAME", "DISK", "TABLE", "OPEN", "COW", "BASE", "VERDICT"), rows)


def _verdict(find: Find) -> str:
    if find.is_taken:
        return "is a disk of this root"
    return f"no: {find.flaw}; {find.advice}" if find.flaw else "can be taken over"


def _described(find: Find) -> dict[str, object]:
    return {
        "kind": find.kind.value,
        "name": find.name,
        "id": find.id,
        "disk": find.disk,
        "device_number": str(find.number) if find.number else None,
        "table": find.table or None,
        "open_count": find.open_count,
        "cow": find.cow or None,
        "base": find.base or None,
        "can": not find.flaw and not find.is_taken,
        "is_taken": find.is_taken,
        "why_not": find.flaw or None,
        "advice": find.advice or None,
    }

"""The other half of `import`: the disks of another program on this host become byre's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from reconciler import thishost
from reconciler.adoption import Word
from reconciler.annex import Taker
from reconciler.api import Byre
from reconciler.cli import say
from reconciler.cli.app import Context
from reconciler.foreign import Find, Looker, Theirs
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
    if dry_run:
        _show(_looked(ctx, taking), taking.peer, output)
        return 0
    with Byre(ctx.root.path, settings=ctx.settings) as byre:
        taker = Taker(
            byre,
            taking.peer,
            folder=taking.folder,
            word=taking.word,
            reason=taking.reason,
            on_behalf_of=taking.on_behalf_of,
        )
        results = [_taken(byre, taker, find) for find in taker.look(taking.which)]
    _show([find for find, _ in results], taking.peer, output)
    return max((code for _, code in results), default=0)


def _looked(ctx: Context, taking: Taking) -> tuple[Find, ...]:
    """Look, and make nothing: not even the root, if there is none yet."""
    theirs = Theirs(peer=taking.peer, folder=taking.folder or taking.peer.folder, word=taking.word)
    if not ctx.root.log.exists():
        return Looker(thishost.kernel(), None, ctx.root, theirs).look(taking.which)
    with Byre(ctx.root.path, settings=ctx.settings, read_only=True) as byre:
        return Looker(byre.kernel, byre.log, byre.root, theirs).look(taking.which)


def _taken(byre: Byre, taker: Taker, find: Find) -> tuple[Find, int]:
    """Take one over and say how that went; returns what it is now, and the exit code."""
    if find.is_taken:
        say.person(f"{find.name}: is disk {find.disk} already")
        return find, 0
    try:
        name = taker.take(find)
    except ByreError as error:
        say.error(error.message, error.hint)
        return attrs.evolve(find, flaw=error.message, advice=error.hint), error.exit_code
    [waited] = byre.wait([name], timeout_s=WAIT_S)
    say.person(f"{find.name}: taken over, disk {name} is {waited.record.state}")
    if not waited.is_there:
        say.error(f"{name}: {waited.message}", waited.hint)
    return attrs.evolve(find, disk=name, is_taken=True), waited.exit_code


def _show(found: Sequence[Find], peer: Peer, output: str) -> None:
    if output == "json":
        say.machine([_described(find) for find in found])
        return
    if not found:
        say.person(f"nothing of {peer.name} is on this host")
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

"""`log verify`, `log head` and `log keygen`: is the log what was written, and up to where?"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import click

from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.clock import SystemClock
from statemachine import clocksteps, proof, signing
from statemachine.errors import ByreError, IdentityMismatch, LogDamaged, RefusedError, UsageError
from statemachine.events import GENESIS
from statemachine.logreader import LogReader
from statemachine.statement import Statement, parse
from statemachine.utc import iso

HEAD_BYTES_MAX: Final = 65_536
"""A statement has less than a thousand."""


def log_file(command: options.F) -> options.F:
    """Add `--log FILE`."""
    return click.option(
        "--log",
        "file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="A log outside of any root, a copy or a backup; it is only read.",
    )(command)


@attrs.frozen(kw_only=True)
class _Noted:
    """One `--head`, as it was given."""

    source: str
    statement: Statement

    def claim(self) -> proof.Claim:
        return proof.Claim(seq=self.statement.seq, hash=self.statement.hash, source=self.source)


@click.command(
    "verify",
    epilog=options.epilog(
        "byre log verify",
        "byre log verify -o json",
        "byre log verify --head head.json --public-key audit.key.pub",
        "byre log verify --log copy.db --head 812:9f2c…",
    ),
)
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="HEAD",
    help="A head that was noted elsewhere: SEQ:HASH, HASH, or a file of `log head`; - for standard "
    "input. The log must have that event in that place. May be given several times.",
)
@click.option(
    "--public-key",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Every --head must be signed with this key.",
)
@log_file
@options.output("table", "json")
@click.pass_obj
def verify_command(
    ctx: Context,
    *,
    heads: tuple[str, ...],
    public_key: Path | None,
    file: Path | None,
    output: str,
) -> None:
    """Check every event: its hash, its predecessor, noted heads; names the first bad one."""
    if public_key is not None and not heads:
        raise UsageError("--public-key needs a --head to check", hint="say `--head FILE` as well")
    try:
        noted = [_read_head(head) for head in heads]
        for each in noted if public_key is not None else ():
            signing.check(each.statement, public_key or Path(), each.source)
        with LogReader(file or ctx.root.log, lenient=True) as log:
            _refuse_other_root(log, noted)
            chain = proof.verify(log, claims=[each.claim() for each in noted])
            clocksteps.check(log)
    except ByreError as error:
        if output == "json":
            say.machine(_refusal(error))
        raise
    if output == "json":
        shown = [_shown(each, is_checked=public_key is not None) for each in noted]
        summary = {"events": chain.events, "seq": chain.seq, "head": chain.hash}
        say.machine({"ok": True, **summary, "unknown": chain.unknown, "heads": shown})
    say.person(f"{chain.events} events are what was written; head {chain.seq}:{chain.hash}")
    for each in noted:
        say.person(_told(each, is_checked=public_key is not None))


def _refusal(error: ByreError) -> dict[str, Any]:
    """Return what a script is told when the log is not proven."""
    seq = error.seq if isinstance(error, LogDamaged) else None
    what = error.what.value if isinstance(error, LogDamaged) and error.what else None
    if isinstance(error, RefusedError):
        what = error.kind
    return {
        "ok": False,
        "seq": seq,
        "what": what,
        "events": max(seq - 1, 0) if seq is not None else None,
        "message": error.message,
        "hint": error.hint,
    }


def _shown(noted: _Noted, *, is_checked: bool) -> dict[str, Any]:
    statement = noted.statement
    return {
        "source": noted.source,
        "seq": statement.seq,
        "hash": statement.hash,
        "signature": "good" if is_checked else "not checked" if statement.signature else "none",
    }


def _told(noted: _Noted, *, is_checked: bool) -> str:
    signed = "signed with that key" if is_checked else "its signature was not checked"
    about = f"; {signed}" if is_checked or noted.statement.signature else ""
    return f"{noted.source} is in it: nothing before it changed{about}"


def _read_head(given: str) -> _Noted:
    """Read one `--head`: the head itself, or the file that it is in.

    Raises:
        UsageError: it is neither.
    """
    if given == "-":
        text, source = sys.stdin.read(HEAD_BYTES_MAX), "the head from standard input"
    elif os.path.exists(given):  # noqa: PTH110 - a whole JSON text is too long for a path
        try:
            with Path(given).open(encoding="utf-8", errors="replace") as file:
                text, source = file.read(HEAD_BYTES_MAX), f"the head in {given}"
        except OSError as error:
            raise UsageError(f"--head {given}: {error.strerror}") from error
    else:
        text, source = given, f"the head {given:.24}"
    return _Noted(source=source, statement=parse(text, f"--head {given:.80}"))


def _refuse_other_root(log: LogReader, noted: Sequence[_Noted]) -> None:
    for each in noted:
        theirs = each.statement.root_id
        if theirs and log.root_id and theirs != log.root_id:
            msg = f"{each.source} is of root {theirs}; this is the log of root {log.root_id}"
            raise IdentityMismatch(msg, hint="choose the log that it was noted of: --root, --log")


@click.command(
    "head",
    epilog=options.epilog(
        "byre log head", "byre log head -o json", "byre log head --sign audit.key --out head.json"
    ),
)
@click.option(
    "--sign",
    "key",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="KEY",
    help="Check the whole chain, then sign the head with this private key.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the JSON into a new file.",
)
@log_file
@options.output("line", "table", "json")
@click.pass_obj
def head_command(
    ctx: Context, *, key: Path | None, out: Path | None, file: Path | None, output: str
) -> None:
    """Give the newest event's seq and hash, to note elsewhere: it seals all before it."""
    with LogReader(file or ctx.root.log) as log:
        if key is not None:
            proof.verify(log)
        statement = _head_of(log)
    if key is not None:
        statement = signing.sign(statement, key, now=iso(SystemClock().now_ns()))
    if out is not None:
        _write_new(out, say.document(statement.to_data()) + "\n")
        say.person(f"{out} has the head {statement.line()}")
    elif output == "json":
        say.machine(statement.to_data())
    elif output == "table":
        fields = attrs.asdict(statement).items()
        say.table(("field", "value"), [(name, str(value)) for name, value in fields if value != ""])
    else:
        say.line(statement.line())


def _head_of(log: LogReader) -> Statement:
    newest = log.select("ORDER BY seq DESC LIMIT 1")
    if not newest:
        return Statement(seq=0, hash=GENESIS, root_id=log.root_id)
    event = newest[0]
    return Statement(seq=event.seq, hash=event.hash, root_id=log.root_id, at=iso(event.at))


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        msg = f"{path} exists; a head is never overwritten"
        raise RefusedError(msg, hint="name a new file") from error
    except OSError as error:
        raise ByreError(f"{path}: {error.strerror}", hint="name a file that can be made") from error


@click.command("keygen", epilog=options.epilog("byre log keygen audit.key"))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def keygen_command(ctx: Context, *, file: Path) -> None:
    """Make an Ed25519 key to sign heads with; the public key goes into FILE.pub."""
    del ctx
    public = signing.make_keys(file)
    say.person(f"{file} is the private key: keep it from others; {public} is for whoever verifies")

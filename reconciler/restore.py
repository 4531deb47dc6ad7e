"""Going on with a backup of the log: an explicit act, told in the log, that touches no disk.

The kernel is ahead of an older log. What the log does not know any more is found by the next
reconciler: drift, or an orphan. What it still knows but may be wrong about is what was wanted. So
every wish that could take something away is held back until a person says it again
(docs/decisions/0019-a-restored-log-holds-its-wishes-back.md).

What this module does not do: it looks at no kernel and changes no device, file or link of a disk.
May be imported by cli.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import attrs

from reconciler import retold, stateroot
from reconciler.lock import RootLock
from reconciler.root import Root
from statemachine import backup, database, history, payloads, proof, putback
from statemachine.errors import IdentityMismatch, LogUnavailable
from statemachine.eventlog import EventLog
from statemachine.head import Head, Noted
from statemachine.logreader import LogReader


@attrs.frozen(kw_only=True)
class Restored:
    """What was put in place, and what is not in it."""

    backup: str
    seq: int
    hash: str
    lost_seq: int
    """The newest event that the log had before; 0 if that could not be told."""
    lost_hash: str
    kept: str
    """The folder that the log of before was moved to; "" if there was none."""
    held: tuple[str, ...]
    """The disks whose wishes wait to be said again."""


def restore(
    root: Root,
    source: Path,
    *,
    boot_id: str,
    now_ns: Callable[[], int],
    by: payloads.Requester,
    reason: str = "",
) -> Restored:
    """Put a backup in the place of a root's log. Doing it again does the same again.

    Args:
        root: whose log.
        source: a backup, or any whole log of this root; it is only read.
        boot_id: this boot.
        now_ns: UTC in nanoseconds.
        by: who asks.
        reason: why, in their words.

    Raises:
        RootBusy: a reconciler is at work.
        LogUnavailable: another process has the log open, or a file cannot be written.
        LogDamaged: the backup is not what was written; nothing was changed.
        IdentityMismatch: it is another root's.
    """
    if not source.exists():
        raise LogUnavailable(f"{source} does not exist", hint="name a file of `byre log backup`")
    stateroot.secure(root)
    with RootLock(root.lock), backup.partial(root.log) as copy:
        head, root_id = _proven(source, copy)
        before, known_id = putback.newest_of(root.log)
        if known_id and known_id != root_id:
            msg = f"{source} is a log of root {root_id}; {root.path} is root {known_id}"
            raise IdentityMismatch(msg, hint="choose the root it was made of, with --root")
        aside = _aside(root) if root.log.exists() else None
        told = payloads.LogRestored(
            backup=str(source),
            from_seq=head.seq,
            from_hash=head.hash,
            lost_seq=before.seq if before else 0,
            lost_hash=before.hash if before else "",
            kept=str(aside or ""),
            by=by,
        )
        try:
            held, newest = _tell(copy, told, boot_id=boot_id, now_ns=now_ns, reason=reason)
            putback.put_back(copy, root.log, aside or root.path, newest)
        finally:
            Head.of(copy).path.unlink(missing_ok=True)
    return Restored(
        backup=told.backup,
        seq=head.seq,
        hash=head.hash,
        lost_seq=told.lost_seq,
        lost_hash=told.lost_hash,
        kept=told.kept,
        held=held,
    )


def _proven(source: Path, copy: Path) -> tuple[Noted, str]:
    """Copy a backup and prove the copy, so that what was proven is what is put in place."""
    database.copy(source, copy)
    with LogReader(copy) as opened:
        found = proof.verify(opened)
        history.check_records(opened)
        return Noted(found.seq, found.hash), opened.root_id


def _aside(root: Root) -> Path:
    return root.path / f"log-before-restore-{secrets.token_hex(4)}"


def _tell(
    copy: Path,
    told: payloads.LogRestored,
    *,
    boot_id: str,
    now_ns: Callable[[], int],
    reason: str,
) -> tuple[tuple[str, ...], Noted]:
    """Append to the copy what becomes of it; returns the disks that are held, and its new head."""
    with EventLog(copy, boot_id=boot_id, clock_ns=now_ns) as log:
        held = tuple(retold.dangerous(log.records(), until=told.from_seq))
        actor = told.by.user if told.by else ""
        newest = log.append(retold.events(told, held, actor=actor, reason=reason))[-1]
    return held, Noted(newest.seq, newest.hash)

"""Letting the oldest events go: into an archive first, and only then out of the log.

In four steps, each of which may be the last before a crash:

1. The archive is written, read back and verified, and gets its name when it is on disk.
2. One transaction makes the log begin after it: with a checkpoint of all disks, removed ones too, a
   row of `archives`, and an event that says so, who did it, and the digests of both.
3. The events that are in the archive by then are deleted, some at a time, so that nobody who
   appends waits long. What a crash leaves of them is ignored, and deleted by the next call.
4. Nothing gives room back to the file system but `vacuum`.

May be imported by `reconciler`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from statemachine import (
    archive,
    basetable,
    checkpoints,
    logends,
    newlog,
    payloads,
    schema,
    timetravel,
)
from statemachine.archive import Span
from statemachine.batch import Batch, Request
from statemachine.checkpoints import Checkpoint
from statemachine.errors import LogDamaged, RefusedError
from statemachine.eventlog import EventLog
from statemachine.events import CORRELATION_BYTES, EventType, NewEvent
from statemachine.head import Noted
from statemachine.names import HOST
from statemachine.proof import followed
from statemachine.record import to_text
from statemachine.schema import ARCHIVE_COLUMNS, IS_RARE

if TYPE_CHECKING:
    import sqlite3

DELETE_EVENTS: Final = 5_000
"""How many events are deleted in one transaction."""


@attrs.frozen(kw_only=True)
class Archived:
    """What was done: which events are in the file now, and what it is."""

    file: Path
    digest: str
    """SHA-256 of the file."""
    size_bytes: int
    span: Span


def archive_before(
    log: EventLog, before: int, file: Path, *, by: payloads.Requester, reason: str = ""
) -> Archived | None:
    """Move the events of before a time into an archive.

    The disks and what is recorded of them stay, however old; their older history is in the archive.

    Args:
        log: open for writing.
        before: UTC in ns.
        file: the archive, a new file.
        by: who asked.
        reason: why, for the log.

    Returns:
        What was done; None if no event is as old as that.

    Raises:
        RefusedError: the file exists, or somebody else has archived meanwhile.
        LogDamaged: an event is not what was written; nothing was changed.
        LogUnavailable: the file or the log cannot be written.
    """
    delete_archived(log)
    until = timetravel.seq_at(log, before - 1)
    with log.frozen() as connection:
        begin = logends.begin(connection)
        if until <= begin.seq:
            return None
        span = _span(connection, begin, until)
        digest = archive.write(
            file,
            span,
            root_id=log.root_id,
            events=followed(timetravel.events_between(connection, begin.seq, until), begin),
            kept=_kept(connection, until),
            begin=newlog.beginning(connection).archives,
        )
        base = _base(connection, span)
    done = Archived(file=file, digest=digest, size_bytes=file.stat().st_size, span=span)
    _begin_after(log, begin, base, done, by=by, reason=reason)
    delete_archived(log)
    return done


def delete_archived(log: EventLog) -> int:
    """Delete the events that are in an archive; returns how many there were."""
    deleted = 0
    while count := log.transact(_delete_some):
        deleted += count
    return deleted


def vacuum(log: EventLog) -> None:
    """Give the room of what was deleted back to the file system; nobody can append meanwhile.

    Needs as much room as the log has events, for a while.
    """
    log.outside_of_transactions(lambda connection: connection.execute("VACUUM"))


def _delete_some(connection: sqlite3.Connection) -> int:
    begin = logends.begin(connection).seq
    oldest = connection.execute("SELECT min(seq) FROM events").fetchone()[0]
    if oldest is None or oldest > begin:
        return 0
    until = min(begin, oldest + DELETE_EVENTS - 1)
    with schema.upkeep(connection):
        return connection.execute("DELETE FROM events WHERE seq <= ?", (until,)).rowcount


def _span(connection: sqlite3.Connection, begin: Noted, until: int) -> Span:
    query = "SELECT hash, at FROM events WHERE seq = ?"
    first = connection.execute(query, (begin.seq + 1,)).fetchone()
    last = connection.execute(query, (until,)).fetchone()
    if first is None or last is None:
        raise LogDamaged(f"event {begin.seq + 1 if first is None else until} is missing")
    return Span(
        first_seq=begin.seq + 1,
        prev_hash=begin.hash,
        last_seq=until,
        last_hash=str(last[0]),
        first_at=int(first[1]),
        last_at=int(last[1]),
    )


def _kept(connection: sqlite3.Connection, until: int) -> Iterator[Checkpoint]:
    """Yield some of the checkpoints, each with all that were removed since the one before it."""
    texts: dict[str, str] = {}
    earliest, kept, after = None, None, -1
    while (each := checkpoints.first_after(connection, after=after)) is not None:
        if each.seq > until:
            return
        each.check()
        after = each.seq
        texts |= {record.name: to_text(record) for record in each.removed_records()}
        earliest = each.earliest if earliest is None else min(earliest, each.earliest)
        if kept is None or each.seq - kept >= archive.CHECKPOINT_EVENTS:
            yield checkpoints.make(
                seq=each.seq,
                hash_=each.hash,
                earliest=earliest,
                living=(to_text(record) for record in each.records()),
                gone=texts.values(),
            )
            kept, earliest, texts = each.seq, None, {}


def _base(connection: sqlite3.Connection, span: Span) -> Checkpoint:
    """Return the checkpoint that the log begins with from now on: of all disks that there were."""
    with timetravel.roster_at(connection, span.last_seq) as roster:
        return checkpoints.make(
            seq=span.last_seq,
            hash_=span.last_hash,
            earliest=span.last_at,
            living=(to_text(roster.living[name]) for name in sorted(roster.living)),
            gone=roster.removed_texts(),
        )


def _begin_after(
    log: EventLog,
    begin: Noted,
    base: Checkpoint,
    done: Archived,
    *,
    by: payloads.Requester,
    reason: str,
) -> None:
    """Make the log begin after the archive, and say so in it; one transaction."""
    now_ns = log.now_ns()

    def write(connection: sqlite3.Connection) -> Noted:
        if logends.begin(connection) != begin:
            msg = f"another process has archived meanwhile; {done.file} holds what the log has not"
            raise RefusedError(msg, hint="keep one of the two files that `byre log info` names")
        with schema.upkeep(connection):
            connection.execute("DELETE FROM checkpoints WHERE seq <= ?", (base.seq,))
        checkpoints.insert(connection, base)
        row = {
            **attrs.asdict(done.span),
            "file": str(done.file),
            "digest": done.digest,
            "archived_at": now_ns,
        }
        newlog.insert_archive(connection, [row[column] for column in ARCHIVE_COLUMNS])
        batch = Batch(connection, log.boot_id, now_ns)
        request = Request([_told(connection, base, done, by=by, reason=reason)])
        batch.place(request)
        if request.error is not None:
            raise request.error
        batch.write()
        return Noted(*batch.head)

    log.head.note(log.transact(write))


def _told(
    connection: sqlite3.Connection,
    base: Checkpoint,
    done: Archived,
    *,
    by: payloads.Requester,
    reason: str,
) -> NewEvent:
    booted_at = f"WHERE type = ? AND {IS_RARE} ORDER BY seq DESC LIMIT 1"
    query = f"SELECT boot_id FROM events {booted_at}"  # noqa: S608 - constants
    booted = connection.execute(query, (EventType.HOST_BOOTED.value,)).fetchone()
    payload = payloads.LogArchived(
        first_seq=done.span.first_seq,
        last_seq=done.span.last_seq,
        last_hash=done.span.last_hash,
        file=str(done.file),
        digest=done.digest,
        checkpoint=base.digest,
        booted=booted[0] if booted else "",
        bases=tuple(basetable.read(connection).values()),
        by=by,
    )
    return NewEvent(
        disk=HOST,
        type=EventType.LOG_ARCHIVED,
        data=payloads.to_data(payload),
        actor=by.user,
        reason=reason,
        correlation_id=secrets.token_hex(CORRELATION_BYTES),
    )

"""The proof: is every event what was written, in its place, up to the end that somebody noted?

Each event is checked against its hash and against the event before it, in bounded memory. Where
the chain breaks, `diagnosis` names the first bad event and says what was done to it. A chain cannot
show that its end is gone, or that all of it was computed anew. What shows that is a head that was
noted elsewhere: beside the log, in a backup, or by a person.

Reads only. May be imported by history, salvage, backup and `reconciler`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs

from statemachine import database, diagnosis
from statemachine.errors import Damage, LogDamaged, LogUnavailable, UsageError
from statemachine.events import GENESIS, Event, is_intact, is_known
from statemachine.head import Noted
from statemachine.logreader import LogReader
from statemachine.statement import parse

BEGINNING: Final = Noted(0, GENESIS)
"""What the first event follows."""
_HEAD_HINT: Final = (
    "this log was changed, or is an older or another one than the head was noted of; "
    "compare with a copy"
)


@attrs.frozen(kw_only=True)
class Verification:
    """What a check of the whole chain found. `seq` and `hash` are the head of what is intact."""

    events: int
    seq: int
    hash: str
    unknown: int
    """Events of a type or schema version that this program does not know; kept, not damaged."""


@attrs.frozen(kw_only=True)
class Claim:
    """A head that was noted elsewhere: which event stood where."""

    hash: str
    seq: int | None = None
    """Its place; None when only the hash was noted."""
    source: str = "the head"
    """Where it was noted, in words."""


def verify(
    log: LogReader, *, start: Noted | None = None, claims: Sequence[Claim] = ()
) -> Verification:
    """Check every event against its hash and its predecessor, and the log against noted heads.

    Args:
        log: may be open leniently.
        start: the event to begin after; by default the one that the log begins after, which is
            the last one in an archive, or nothing.
        claims: heads that were noted elsewhere; each must be there.

    Raises:
        UsageError: a head is of an event in an archive.
        LogDamaged: with the seq of the first bad event and what was done to it.
        LogUnavailable: a claim is of an event before the beginning of this log.
    """
    start = start or _beginning(log)
    seq, last_hash, count, unknown = start.seq, start.hash, 0, 0
    claims = [*claims, *_own_claims(log, start)]
    wanted = {claim.hash for claim in claims}
    places: dict[str, int] = {}
    for event in _followed(log, start, _noted(claims)):
        seq, last_hash, count = event.seq, event.hash, count + 1
        unknown += not is_known(event)
        if last_hash in wanted:
            places[last_hash] = seq
    for claim in claims:
        _check_claim(log, claim, places, start=start, newest=seq)
    return Verification(events=count, seq=seq, hash=last_hash, unknown=unknown)


def intact(log: LogReader, *, start: Noted | None = None) -> Iterator[Event]:
    """Yield the events from the first one as long as they are what was written.

    The log is read twice: that an event was inserted shows only further on.

    Raises:
        LogDamaged: after the last intact one, if that is not the end of the log.
    """
    start = start or _beginning(log)
    try:
        verify(log, start=start)
    except LogDamaged as error:
        if error.seq is not None:
            yield from _up_to(log, start, error.seq - 1)
        raise
    yield from log.events(after=start.seq)


def _beginning(log: LogReader) -> Noted:
    """Return the event that the first one follows."""
    try:
        return log.begins_after()
    except LogDamaged:  # then the first event says that those before it are missing
        return BEGINNING


def followed(events: Iterable[Event], start: Noted) -> Iterator[Event]:
    """Yield events as long as each is what was written and follows the one before.

    Raises:
        LogDamaged: at the first that does not.
    """
    seq, last_hash = start.seq, start.hash
    for event in events:
        if event.seq != seq + 1 or event.prev_hash != last_hash or not is_intact(event):
            msg = f"event {event.seq} was edited, or does not follow event {seq}"
            hint = "`byre log verify` says what was done to it; nothing was changed"
            raise LogDamaged(msg, seq=seq + 1, hint=hint)
        yield event
        seq, last_hash = event.seq, event.hash


def _up_to(log: LogReader, start: Noted, last: int) -> Iterator[Event]:
    for event in _readable(log, start.seq):
        if event.seq > last:
            return
        yield event
        if event.seq == last:
            return


def _own_claims(log: LogReader, start: Noted) -> list[Claim]:
    """Return the head that a backup carries in itself; it must be there until it is archived."""
    try:
        noted = parse(found, "its own head") if (found := log.backup_head()) else None
    except (LogDamaged, UsageError):  # what cannot be read counts as not noted
        return []
    if noted is None or noted.seq is None or noted.seq < start.seq:
        return []
    return [Claim(hash=noted.hash, seq=noted.seq, source="the head that its backup carries")]


def _noted(claims: Sequence[Claim]) -> list[Noted]:
    return [Noted(claim.seq, claim.hash) for claim in claims if claim.seq is not None]


def _followed(log: LogReader, start: Noted, heads: Sequence[Noted]) -> Iterator[Event]:
    """Yield the events as long as each follows the one before, and the end is where it was noted.

    Raises:
        LogDamaged: at the first that does not.
    """
    noted, newest_record = log.head.read(), _newest_record(log)
    heads = [*heads, *([noted] if noted else [])]
    last, found = start, ""
    for event in _readable(log, start.seq):
        if event.seq != last.seq + 1 or event.prev_hash != last.hash or not is_intact(event):
            raise diagnosis.diagnose(log, last, event, heads)
        last = Noted(event.seq, event.hash)
        if noted is not None and last.seq == noted.seq:
            found = last.hash
            log.head.check(noted, newest=last.seq, found=found)
        yield event
    if noted is not None and noted.seq > start.seq:
        log.head.check(noted, newest=last.seq, found=found)
    if newest_record is not None and newest_record[1] > last.seq:
        name, seq = newest_record
        msg = f"the end is missing: the log ends at {last.seq}, and {name} stands on event {seq}"
        raise diagnosis.damage(msg, seq=last.seq + 1, what=Damage.TRUNCATED, intact=last.seq)
    _refuse_strays(log, start)


def _newest_record(log: LogReader) -> tuple[str, int] | None:
    """Return what the records stand on; None if they cannot be read: the events are the truth."""
    try:
        return log.newest_record()
    except LogDamaged:
        return None


def _refuse_strays(log: LogReader, start: Noted) -> None:
    """Refuse rows before the first event, which no reader by pages would ever see.

    What is in an archive may still be there: it is deleted after the log begins without it.
    """
    if start.seq:
        return
    stray: list[Event] = []
    with contextlib.suppress(LogDamaged):  # what cannot be read is found on the way
        stray = log.select("WHERE seq <= ? ORDER BY seq LIMIT 1", start.seq)
    if stray:
        seq = stray[0].seq
        msg = f"event {seq} was inserted: the log begins at {start.seq + 1}"
        raise diagnosis.damage(msg, seq=seq, what=Damage.INSERTED, intact=start.seq)


def _readable(log: LogReader, after: int) -> Iterator[Event]:
    """Yield all events; from a page that cannot be read on, one by one up to the first bad one."""
    try:
        for event in log.events(after=after):
            yield event
            after = event.seq
    except LogDamaged:
        yield from _one_by_one(log, after)


def _one_by_one(log: LogReader, last: int) -> Iterator[Event]:
    while True:
        seq = last + 1
        try:
            found = log.select("WHERE seq >= ? ORDER BY seq LIMIT 1", seq)
        except LogDamaged as error:
            is_edited = database.is_of_a_text(error)
            what = Damage.EDITED if is_edited else Damage.UNREADABLE
            msg = f"event {seq} cannot be read: {error.message}"
            raise diagnosis.damage(msg, seq=seq, what=what, intact=last) from error
        if not found:
            msg = f"event {seq} cannot be found, and the file is damaged"
            raise diagnosis.damage(msg, seq=seq, what=Damage.UNREADABLE, intact=last)
        last = found[0].seq
        yield found[0]


def _check_claim(
    log: LogReader, claim: Claim, places: dict[str, int], *, start: Noted, newest: int
) -> None:
    """Check that a noted head is there, in the place that was noted."""
    if claim.seq is not None and claim.seq < start.seq:
        msg = f"event {claim.seq} of {claim.source} was archived: the log begins at {start.seq + 1}"
        raise LogUnavailable(msg, hint="check that head against the archive")
    place = places.get(claim.hash, start.seq if claim.hash == start.hash else None)
    if place is not None and claim.seq in (None, place):
        return
    if claim.seq is not None and claim.seq < start.seq:
        msg = f"event {claim.seq} of {claim.source} is not among those after {start.seq}"
        raise UsageError(msg, hint="it may be in an archive; `byre log info` names them")
    if claim.seq is None:
        msg = f"no event has the hash {claim.hash} of {claim.source}"
        raise LogDamaged(msg, what=Damage.REPLACED, hint=_HEAD_HINT)
    if claim.seq > newest:
        msg = f"the log ends at {newest}, and {claim.source} is of event {claim.seq}"
        raise LogDamaged(msg, seq=newest + 1, what=Damage.TRUNCATED, hint=_HEAD_HINT)
    there = log.select("WHERE seq = ?", claim.seq)
    found = there[0].hash if there else "no event"
    msg = f"event {claim.seq} is another one than {claim.source} says: {found}, not {claim.hash}"
    raise LogDamaged(msg, seq=claim.seq, what=Damage.REPLACED, hint=_HEAD_HINT)

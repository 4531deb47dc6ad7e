"""What is wrong where the chain breaks: which event is the first bad one, and what was done to it.

A chain says more than that it is broken. The hash of an event covers its place and the event before
it, so an event that was moved still shows where it was written, and one that was inserted has
neighbours that know nothing of it. Asked only after a damage was found: each question may read the
whole table, in bounded memory.

Reads only. May be imported by proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from statemachine.errors import Damage, LogDamaged
from statemachine.events import GENESIS, Event, chain_hash, is_intact
from statemachine.head import Noted
from statemachine.logreader import LogReader
from statemachine.schema import EVENT_COLUMNS

SHIFT_MAX: Final = 1000
"""How far away the place is looked for that an event was written at, when others are gone."""
_FOLLOWERS_MAX: Final = 100
_SORTS: Final = {bytes: "a BLOB", float: "a REAL", int: "an INTEGER", str: "a TEXT"}


def damage(message: str, *, seq: int, what: Damage, intact: int) -> LogDamaged:
    """Return the error for a first bad event.

    Args:
        message: what is wrong.
        seq: the first bad event.
        what: what was done to it.
        intact: up to which event all is as it was written.
    """
    return LogDamaged(message, seq=seq, what=what, hint=_intact_up_to(intact))


def diagnose(log: LogReader, last: Noted, found: Event, heads: Sequence[Noted]) -> LogDamaged:
    """Say what is wrong with the event that follows the last good one.

    Args:
        log: may be open leniently.
        last: the last event that follows those before it.
        found: the next row, which does not fit.
        heads: events that somebody noted; what they name was there.
    """
    return _Case(log, last, found, heads).verdict()


class _Case:
    """One break of the chain."""

    def __init__(self, log: LogReader, last: Noted, found: Event, heads: Sequence[Noted]) -> None:
        self._log = log
        self._last = last
        self._found = found
        self._heads = heads
        self._due = last.seq + 1

    def verdict(self) -> LogDamaged:
        found, due = self._found, self._due
        if type(found.seq) is not int:
            msg = f"event {due} was inserted: its place is {found.seq!r:.40}"
            return self._bad(due, Damage.INSERTED, msg)
        if found.seq < due:
            msg = f"event {found.seq} was inserted: there are two of it"
            return self._bad(found.seq, Damage.INSERTED, msg)
        if found.seq > due:
            return self._of_gap()
        return self._of_link() if is_intact(found) else self._of_columns()

    def _bad(self, seq: int, what: Damage, message: str) -> LogDamaged:
        return damage(message, seq=seq, what=what, intact=seq - 1)

    def _of_gap(self) -> LogDamaged:
        last, found, due = self._last.seq, self._found, self._due
        moved = self._moved_to()
        if moved is not None:
            return self._bad(due, Damage.REORDERED, f"event {due} was moved: it stands at {moved}")
        is_one = found.seq == due + 1
        gone = f"event {due} is" if is_one else f"events {due} to {found.seq - 1} are"
        msg = f"{gone} missing: {last} is followed by {found.seq}"
        return self._bad(due, Damage.MISSING, msg)

    def _of_columns(self) -> LogDamaged:
        """The row in this place has a hash that is not that of its columns."""
        due, moved, written_at = self._due, self._moved_to(), self._written_at()
        is_later = written_at is not None and written_at > due
        is_copy = written_at is not None and self._is_copied()
        if moved is not None and is_later and not is_copy:
            msg = f"event {due} was moved to {moved}; the one written as {written_at} is there"
            return self._bad(due, Damage.REORDERED, msg)
        if moved is not None:
            msg = f"event {due} was inserted: the one that was written there stands at {moved}"
            return self._bad(due, Damage.INSERTED, msg)
        if written_at is not None and is_later and not is_copy:
            msg = f"event {due} is missing: in its place is the one written as {written_at}"
            return self._bad(due, Damage.MISSING, msg)
        if written_at is not None and not is_copy:
            msg = f"event {written_at} was inserted: the one that was written there stands at {due}"
            return self._bad(written_at, Damage.INSERTED, msg)
        why = f"a copy of event {written_at} is in its place" if is_copy else self._odd_column()
        return self._bad(due, Damage.EDITED, f"event {due} was edited: {why}")

    def _of_link(self) -> LogDamaged:
        """The row in this place is whole, and names another one as the event before it."""
        last, due, moved = self._last.seq, self._due, self._moved_to()
        if moved is not None:
            msg = f"event {due} was inserted: the one that was written there stands at {moved}"
            return self._bad(due, Damage.INSERTED, msg)
        if self._found.prev_hash == GENESIS:
            msg = f"the chain was restarted at event {due}: it does not follow event {last}"
            return self._bad(due, Damage.RESTARTED, msg)
        confirmed = self._is_confirmed()
        if confirmed is False:
            msg = f"the chain was restarted at event {due}: it follows an event that never was"
            return self._bad(due, Damage.RESTARTED, msg)
        if last and (confirmed or self._has_follower()):
            msg = f"event {last} was edited and its hash made anew: event {due} does not follow it"
            return self._bad(last, Damage.EDITED, msg)
        if any(noted.seq == last for noted in self._heads):
            msg = f"event {due} was inserted: it does not follow event {last}"
            return self._bad(due, Damage.INSERTED, msg)
        msg = f"event {due} was edited and its hash made anew: it does not follow event {last}"
        return self._bad(due, Damage.EDITED, msg)

    # --- what the rest of the table tells ----------------------------------------------------

    def _select(self, where: str, *values: object) -> list[Event]:
        """Ask the log; a page that cannot be read tells nothing."""
        try:
            return self._log.select(where, *values)
        except LogDamaged:
            return []

    def _moved_to(self) -> int | None:
        """Return where the event stands that was written in this place; None if it is nowhere."""
        for row in self._select("WHERE prev_hash = ? LIMIT ?", self._last.hash, _FOLLOWERS_MAX):
            if row.seq != self._due and _was_written_as(row, self._due):
                return row.seq
        return None

    def _written_at(self) -> int | None:
        """Return the place that the row was written at; None if its columns fit none."""
        before = self._select("WHERE hash = ? LIMIT 1", self._found.prev_hash)
        guesses = [before[0].seq + 1] if before else []
        guesses += [1] if self._found.prev_hash == GENESIS else []
        guesses += range(self._due + 1, self._due + SHIFT_MAX)
        return next((seq for seq in guesses if _was_written_as(self._found, seq)), None)

    def _is_copied(self) -> bool:
        """Tell whether the row also stands elsewhere."""
        return len(self._select("WHERE hash = ? LIMIT 2", self._found.hash)) > 1

    def _has_follower(self) -> bool:
        after = self._select("WHERE seq = ?", self._due + 1)
        return bool(after) and after[0].prev_hash == self._found.hash and is_intact(after[0])

    def _is_confirmed(self) -> bool | None:
        """Tell whether what somebody noted of the events from here on is there; None if nothing."""
        for noted in self._heads:
            if noted.seq >= self._due:
                there = self._select("WHERE seq = ?", noted.seq)
                return bool(there) and there[0].hash == noted.hash
        return None

    def _odd_column(self) -> str:
        """Say which column is of another sort than byre writes; else that the hash does not fit."""
        for name, value in zip(EVENT_COLUMNS, self._found.columns(), strict=True):
            wanted = EVENT_COLUMNS[name]
            if type(value) is not wanted:
                return f"its {name} is {_SORTS.get(type(value), 'NULL')}, not {_SORTS[wanted]}"
        return "its hash does not fit its columns"


def _was_written_as(event: Event, seq: int) -> bool:
    try:
        return chain_hash((seq, *event.columns()[1:-1])) == event.hash
    except (TypeError, ValueError):
        return False


def _intact_up_to(seq: int) -> str:
    if seq <= 0:
        return "no event is left; restore a copy of the root's log"
    which = "event 1 is" if seq == 1 else f"events 1 to {seq} are"
    return f"{which} intact; restore a copy, or keep these: `byre log salvage`"
